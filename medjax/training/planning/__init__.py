"""What a recipe would need on machines that are not there: memory, communication and time, from a real compilation."""
