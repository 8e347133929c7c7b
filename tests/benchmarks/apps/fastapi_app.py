"""What a FastAPI application answers: JSON, with its parameters and its body checked."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI(openapi_url=None)


class Item(BaseModel):
    """What is posted."""

    id: int
    name: str
    price: float
    tags: list[str]
    in_stock: bool


@app.get("/items")
async def list_items(page: int, sort: str) -> dict[str, object]:
    return {"page": page, "sort": sort, "items": []}


@app.post("/items")
async def create_item(item: Item) -> Item:
    return item
