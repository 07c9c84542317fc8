"""The service: FastAPI, async, Qdrant or Milvus.

    cd examples
    uvicorn service.app:create_app --factory

Then open the page that it names. `SERVICE_ENGINE` (qdrant or milvus) and `SERVICE_URL` (a server, or a path for the
embedded engine) choose the database, `SERVICE_DESIGN` (interleave or split) the experiment's, `SERVICE_LOG` the folder
of its event log, and `SERVICE_WINDOW` for how many seconds each visitor is watched.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from zipfile import ZipFile

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from dbnorm_vdb.demo import Pictures, load_pictures
from dbnorm_vdb.errors import EventLogError, InvalidInputError
from dbnorm_vdb.experiments import EventLog, Experiment, analyze
from service.engines import Engine, Found, open_engine

PAGES = Path(__file__).parent / "pages"
ARMS = ("raw", "dual_is")


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    engine: str = field(default_factory=lambda: os.environ.get("SERVICE_ENGINE", "qdrant"))
    url: str = field(default_factory=lambda: os.environ.get("SERVICE_URL", ""))
    design: str = field(default_factory=lambda: os.environ.get("SERVICE_DESIGN", "interleave"))
    log: str = field(default_factory=lambda: os.environ.get("SERVICE_LOG", ""))
    window: float = field(default_factory=lambda: float(os.environ.get("SERVICE_WINDOW", "60")))


class Wanted(BaseModel):
    """A search by one of the texts that `encode` knows, or by a vector."""

    text: Annotated[str | None, Field(max_length=1000)] = None
    vector: Annotated[list[float] | None, Field(max_length=4096)] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 10


class Visit(BaseModel):
    """A visitor's search."""

    visitor: Annotated[str, Field(min_length=1, max_length=256)]
    text: Annotated[str, Field(max_length=1000)]
    limit: Annotated[int, Field(ge=1, le=100)] = 10


class Clicked(BaseModel):
    """A visitor's click on a result."""

    impression: Annotated[str, Field(min_length=1, max_length=64)]
    item: int


class Service:
    """One database, one encoder, one experiment."""

    def __init__(self, engine: Engine, data: Pictures, log: EventLog, settings: Settings) -> None:
        self.engine = engine
        self.log = log
        self.settings = settings
        self.experiment = Experiment("hubs", arms=ARMS, salt="2025")
        self.dimension = data.test.texts.shape[1]
        self.texts: dict[str, list[float]] = dict(
            zip((record["text"] for record in data.test.records), data.test.texts.tolist(), strict=True)
        )

    def encode(self, wanted: Wanted) -> Sequence[float]:
        """The vector of a query. Stands for the model that embeds texts: here they are looked up."""
        if (wanted.text is None) == (wanted.vector is None):
            raise HTTPException(422, "give either a text or a vector")
        if wanted.vector is not None:
            if len(wanted.vector) != self.dimension:
                raise HTTPException(422, f"vectors have {self.dimension} numbers, this one has {len(wanted.vector)}")
            return wanted.vector
        if wanted.text not in self.texts:
            raise HTTPException(404, "no vector for this text; GET /texts says which there are")
        return self.texts[wanted.text]

    async def search(self, wanted: Wanted, method: str | None) -> dict[str, Any]:
        """The results, best first."""
        try:
            found = await self.engine.search(self.encode(wanted), limit=wanted.limit, method=method)
        except self.engine.errors as error:
            raise HTTPException(503, f"the database does not answer as it should ({type(error).__name__})") from error
        return {"results": found}

    async def visit(self, visit: Visit) -> dict[str, Any]:
        """What a visitor of the experiment is shown: one arm's results, or both interleaved."""
        wanted = Wanted(text=visit.text, limit=visit.limit)
        if self.settings.design == "split":
            arm = self.experiment.assign(visit.visitor)
            found = (await self.search(wanted, arm))["results"]
            impression = self.log.impression(self.experiment, visit.visitor, arm, [item.id for item in found])
        else:
            first, second = [(await self.search(wanted, arm))["results"] for arm in ARMS]
            shown = self.experiment.interleave(
                visit.visitor, first, second, id_of=lambda item: item.id, limit=visit.limit
            )
            found, impression = list(shown.items), self.log.interleaved(self.experiment, shown)
        return {"impression": impression, "results": [_without_score(item) for item in found]}

    async def health(self) -> dict[str, Any]:
        """Whether searches are normalised, and how many were not, by reason."""
        status = await self.engine.images.status()
        return {
            "status": "ok" if status.active and not status.advice else "degraded",
            "engine": status.engine,
            "items": status.item_count,
            "coverage": status.coverage,
            "method": status.active.method if status.active else None,
            "advice": status.advice,
            "raw_fallbacks": self.engine.images.fallback_reasons,
            "events_dropped": self.log.dropped_count,
        }

    def report(self, until: datetime | None) -> dict[str, Any]:
        """What the event log says. It reads the whole log: for a thread."""
        window = timedelta(seconds=self.settings.window)
        return analyze(self.log.path, experiment=self.experiment.name, window=window, until=until).model_dump(
            mode="json"
        )


def _without_score(found: Found) -> dict[str, Any]:
    """Scores would tell a visitor whose result it is."""
    return {"id": found.id, "title": found.title}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Its database is opened, filled and fitted when it starts."""
    chosen = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            data = load_pictures()
            url = chosen.url or str(Path(folder) / ("qdrant" if chosen.engine == "qdrant" else "milvus.db"))
            engine = await open_engine(chosen.engine, url, data)
            try:
                with EventLog(chosen.log or Path(folder) / "events") as log:
                    app.state.service = Service(engine, data, log, chosen)
                    yield
            finally:
                await engine.close()

    app = FastAPI(title="Picture search", lifespan=lifespan)
    _add_searches(app)
    _add_experiment(app)
    _add_pages(app)

    @app.exception_handler(InvalidInputError)
    async def refuse(request: Request, error: InvalidInputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    return app


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def _add_searches(app: FastAPI) -> None:
    @app.post("/search")
    async def normalized_search(wanted: Wanted, request: Request) -> dict[str, Any]:
        """Normalised, by the method that was fitted."""
        return await _service(request).search(wanted, None)

    @app.post("/search/raw")
    async def raw_search(wanted: Wanted, request: Request) -> dict[str, Any]:
        """As the database ranks."""
        return await _service(request).search(wanted, "raw")

    @app.get("/health")
    async def health(request: Request) -> JSONResponse:
        """200 if the database answers, with whether searches are normalised; 503 if it does not."""
        try:
            return JSONResponse(await _service(request).health())
        except _service(request).engine.errors as error:
            return JSONResponse({"status": "down", "reason": type(error).__name__}, 503)


def _add_experiment(app: FastAPI) -> None:
    @app.post("/experiment/search")
    async def visit(visit: Visit, request: Request) -> dict[str, Any]:
        """Results for a visitor, logged as an impression. Nothing in them says which arm they are of."""
        return await _service(request).visit(visit)

    @app.post("/experiment/click", status_code=204)
    async def click(clicked: Clicked, request: Request) -> None:
        """A click on a result of an impression."""
        _service(request).log.click(clicked.impression, clicked.item)

    @app.get("/experiment/report")
    def report(request: Request, until: Annotated[datetime | None, Query()] = None) -> dict[str, Any]:
        """What the experiment has found until now; one may look as often as one likes."""
        try:
            return _service(request).report(until)
        except EventLogError as error:
            raise HTTPException(404, f"nothing to report yet: {error}") from error


def _add_pages(app: FastAPI) -> None:
    thumbnails = ZipFile(str(files("dbnorm_vdb.demo") / "data" / "thumbnails.zip"))
    names = frozenset(thumbnails.namelist())

    @app.get("/", include_in_schema=False)
    async def start() -> RedirectResponse:
        return RedirectResponse("/pages/search.html")

    @app.get("/pages/{name}.html", include_in_schema=False)
    async def page(name: str) -> FileResponse:
        if name not in ("search", "watch"):
            raise HTTPException(404)
        return FileResponse(PAGES / f"{name}.html")

    @app.get("/pictures/{number}.webp", include_in_schema=False)
    def picture(number: int) -> Response:
        if f"{number}.webp" not in names:
            raise HTTPException(404)
        return Response(
            thumbnails.read(f"{number}.webp"), media_type="image/webp", headers={"Cache-Control": "max-age=86400"}
        )

    @app.get("/texts")
    async def texts(request: Request) -> list[str]:
        """The queries that can be embedded here."""
        return list(_service(request).texts)
