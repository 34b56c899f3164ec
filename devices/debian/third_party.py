"""Lists the Python libraries of a directory with their licences: `python3 third_party.py DIRECTORY`."""

import sys
from importlib.metadata import Distribution, distributions


def licence(library: Distribution) -> str:
    """What its metadata says: an SPDX expression, classifiers, or the free text of old metadata."""
    metadata = library.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    names = [line.rpartition(" :: ")[2] for line in classifiers]
    return "; ".join(names) or (metadata.get("License") or "see its directory").splitlines()[0]


def main() -> None:
    """Print one line a library."""
    for library in sorted(distributions(path=[sys.argv[1]]), key=lambda each: each.metadata["Name"].lower()):
        print(f"{library.metadata['Name']} {library.version}: {licence(library)}")


if __name__ == "__main__":
    main()
