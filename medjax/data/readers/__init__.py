"""Reading files of one format each into raw items, with errors that name the file and the fix."""
