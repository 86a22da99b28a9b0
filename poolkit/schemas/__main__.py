"""Write the schema files next to this module: ``python -m poolkit.schemas``."""

from __future__ import annotations

from pathlib import Path

from poolkit.schemas import generate

if __name__ == "__main__":
    here = Path(__file__).parent
    made = generate()
    for old in [*here.glob("*.rng"), *here.glob("*.xsd")]:
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (here / name).write_text(text, encoding="utf-8")
