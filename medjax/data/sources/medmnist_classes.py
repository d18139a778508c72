"""The data sets of MedMNIST+ (doi 10.1038/s41597-022-01721-8): classes in the order of their labels, and captions."""

from collections.abc import Mapping
from dataclasses import dataclass

from medjax.data.manifest import Finding
from medjax.data.sources.captions import class_findings, fill

_ORGANS = ("bladder", "left femur", "right femur", "heart", "left kidney", "right kidney", "liver", "left lung")
_ORGANS += ("right lung", "pancreas", "spleen")


@dataclass(frozen=True)
class Classes:
    """names: of the classes, by label. templates: of captions. multi_label: a picture may have several classes or
    none, and the labels are 0 or 1 for each. absent: templates of captions without a class (multi_label). reverse: of
    two classes the first is the finding. captions: where templates do not do. volume: 3D.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...]
    licence: str = "CC-BY-4.0"
    multi_label: bool = False
    absent: tuple[str, ...] = ()
    reverse: bool = False
    captions: Mapping[str, tuple[str, ...]] | None = None
    volume: bool = False

    @property
    def modality(self) -> str:
        """Of its pictures."""
        return "volume" if self.volume else "image"

    @property
    def captions_by_class(self) -> dict[str, tuple[str, ...]]:
        """`{class: captions}` in the order of the labels."""
        return dict(self.captions or {name: fill(self.templates, name) for name in self.names})

    @property
    def findings(self) -> dict[str, Finding]:
        """What can be asked for."""
        captions = self.captions_by_class
        if self.multi_label:
            return {c: Finding(captions[c], fill(self.absent, c), (self.modality,)) for c in self.names}
        if self.reverse:
            captions = dict(reversed(captions.items()))
        return class_findings(captions, (self.modality,))

    def caption(self, label: list[int], i: int) -> str:
        """The caption of picture i: in turn one of those of its class, or the classes that it has in one sentence."""
        if not self.multi_label:
            options = self.captions_by_class[self.names[label[0]]]
            return options[i % len(options)]
        present = [name for name, value in zip(self.names, label, strict=True) if value]
        options = fill(self.templates, ", ".join(present)) if present else fill(self.absent, "finding")
        return options[i % len(options)]


def _ct(plane: str) -> tuple[str, ...]:
    return (f"{plane} abdominal CT slice centred on the {{}}", f"CT crop of the {{}}, {plane} plane", "CT of the {}")


CLASSES = {
    "pathmnist": Classes(
        (
            *("adipose tissue", "background", "debris", "lymphocytes", "mucus", "smooth muscle"),
            *("normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
        ),
        ("an H&E-stained histology patch of {}", "colorectal histopathology showing {}", "microscopy of {}"),
    ),
    "chestmnist": Classes(
        (
            *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia"),
            *("pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural thickening", "hernia"),
        ),
        ("a chest x-ray with {}", "frontal chest radiograph showing {}", "chest radiograph: {}"),
        multi_label=True,
        absent=("a chest x-ray without {}", "frontal chest radiograph showing no {}"),
    ),
    "dermamnist": Classes(
        (
            *("actinic keratosis or intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesion"),
            *("dermatofibroma", "melanoma", "melanocytic nevus", "vascular lesion"),
        ),
        ("a dermatoscopic image showing {}", "dermatoscopy of a pigmented skin lesion, {}", "skin lesion: {}"),
        licence="CC-BY-NC-4.0",
    ),
    "octmnist": Classes(
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "a normal retina"),
        ("a retinal OCT scan showing {}", "optical coherence tomography of the retina with {}", "retinal OCT: {}"),
    ),
    "pneumoniamnist": Classes(
        ("normal", "pneumonia"),
        (),
        captions={
            "normal": (
                "a normal chest x-ray of a child",
                "pediatric radiograph without pneumonia",
                "clear lungs, no pneumonia",
            ),
            "pneumonia": (
                "a chest x-ray of a child with pneumonia",
                "pediatric radiograph showing pneumonia",
                "pneumonia, lung opacity",
            ),
        },
    ),
    "retinamnist": Classes(
        tuple(f"{grade} diabetic retinopathy" for grade in ("no", "mild", "moderate", "severe", "proliferative")),
        ("a fundus photograph showing {}", "color fundus image with {}", "fundus: {}"),
    ),
    "breastmnist": Classes(
        ("malignant tumour", "normal or benign tissue"),
        ("a breast ultrasound image showing {}", "ultrasound of the breast showing {}", "breast sonography: {}"),
        reverse=True,
    ),
    "bloodmnist": Classes(
        (
            *("basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte"),
            *("neutrophil", "platelet"),
        ),
        ("a peripheral blood smear showing {}", "microscopy of a single blood cell, {}", "blood cell: {}"),
    ),
    "tissuemnist": Classes(
        (
            *("collecting duct or connecting tubule", "distal convoluted tubule", "glomerular endothelial cell"),
            *("interstitial endothelial cell", "leukocyte", "podocyte", "proximal tubule segment"),
            "thick ascending limb",
        ),
        ("fluorescence microscopy of a kidney cortex cell, {}", "a kidney cell of the type {}", "kidney cell: {}"),
    ),
    "organamnist": Classes(_ORGANS, _ct("axial")),
    "organcmnist": Classes(_ORGANS, _ct("coronal")),
    "organsmnist": Classes(_ORGANS, _ct("sagittal")),
    "organmnist3d": Classes(
        (
            *("liver", "right kidney", "left kidney", "right femur", "left femur", "bladder", "heart", "right lung"),
            *("left lung", "spleen", "pancreas"),
        ),
        ("a CT volume of the {}", "abdominal CT, crop around the {}", "CT of the {}"),
        volume=True,
    ),
    "nodulemnist3d": Classes(
        ("benign nodule", "malignant nodule"),
        ("a chest CT volume with a {}", "CT of a {} of the lung", "lung: {}"),
        volume=True,
    ),
    "adrenalmnist3d": Classes(
        ("normal adrenal gland", "adrenal hyperplasia"),
        ("the shape of a {} segmented in CT", "3D mask from abdominal CT: {}"),
        volume=True,
    ),
    "fracturemnist3d": Classes(
        ("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"),
        ("a chest CT volume with a {}", "CT of a {}", "rib: {}"),
        volume=True,
    ),
    "vesselmnist3d": Classes(
        ("healthy vessel", "aneurysm"),
        ("the shape of a brain vessel, {}", "3D model from MR angiography: {}"),
        volume=True,
    ),
    "synapsemnist3d": Classes(
        ("inhibitory synapse", "excitatory synapse"),
        ("electron microscopy volume of an {}", "an {} in the rat cortex"),
        volume=True,
    ),
}
