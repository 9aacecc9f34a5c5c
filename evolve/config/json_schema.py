"""The JSON schema of search.yml, made from the definitions that read it."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from evolve.config.mergekit_file import MergekitSettings
from evolve.config.schema import SearchConfig
from evolve.scoring.scorers.registry import task_schema
from evolve.space.genes import Gene


def search_schema() -> dict[str, Any]:
    """Draft 2020-12. The recipe's own keys are open here; `evolve check` validates them with the models."""
    schema = SearchConfig.model_json_schema()
    legacy = MergekitSettings.model_json_schema()["properties"]
    schema["properties"] |= {
        name: {**field, "description": f"With genome: {field['description']}"}
        for name, field in legacy.items()
        if name not in schema["properties"]
    }
    task = task_schema(ref_template="#/$defs/{model}")
    schema["$defs"] |= task.pop("$defs")
    schema["properties"]["tasks"]["items"] = {"anyOf": [{"type": "string"}, task]}
    paths = schema["properties"]["task_search_path"]
    schema["properties"]["task_search_path"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": paths["description"],
    }
    name = schema["$defs"]["OptimizerConfig"]["properties"]["name"]
    optimizers = {"type": "string", "anyOf": name["anyOf"]}
    schema["properties"]["optimizer"] = {"anyOf": [optimizers, schema["properties"]["optimizer"]]}
    starts = schema["$defs"]["StartConfig"]["properties"]["method"]["enum"]
    schema["properties"]["start"] = {"anyOf": [{"enum": starts}, schema["properties"]["start"]]}
    genes = TypeAdapter(Gene).json_schema(ref_template="#/$defs/{model}")
    schema["$defs"] |= genes.pop("$defs")
    schema["$defs"]["Gene"] = genes
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "search.yml"
    return schema
