"""The review pages alone on a port: ``review_server.py DESK PORT [KEYS]``."""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from shelfwise.service.access import Access, needs
from shelfwise.service.desk import Desk
from shelfwise.service.keys import KeyRing
from shelfwise.service.review import review_router


def application(desk: Desk, keys: Path) -> FastAPI:
    app = FastAPI()
    app.state.access = Access(KeyRing(keys), loopback=True)
    app.include_router(review_router(desk, needs))
    app.add_api_route("/ready", lambda: "yes")
    return app


if __name__ == "__main__":
    place = Path(sys.argv[1])
    keys = Path(sys.argv[3]) if len(sys.argv) > 3 else place.with_suffix(".keys")
    uvicorn.run(
        application(Desk.open(place), keys), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning"
    )
