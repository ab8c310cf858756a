"""A run's classifier behind HTTP: `python serve.py RUN`, then `curl --data-binary @cat.jpg localhost:8000/predict`.

Pictures that come while the device is busy wait, and are answered together, as one batch.
"""

import argparse
import asyncio
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from PIL import Image

import fmjax
from fmjax.preprocessing import decode

AT_ONCE, WAITING = 32, 512  # pictures in a batch, and that may wait: those after them are refused
MAX_BYTES = 20 * 2**20  # of a picture's file


@dataclass
class Batches:
    """Answers pictures in the order in which they come, as many at once as are there."""

    model: fmjax.ViT
    waiting: asyncio.Queue = field(default_factory=lambda: asyncio.Queue(WAITING))

    async def answer(self, picture: Image.Image) -> fmjax.Prediction:
        """What the model says of a picture. Raises QueueFull where too many wait already."""
        answer = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((picture, answer))
        if isinstance(found := await answer, Exception):
            raise found
        return found

    async def run(self) -> None:
        """A batch after the other, for good."""
        while True:
            batch = [await self.waiting.get()]
            while len(batch) < AT_ONCE and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            pictures = [picture for picture, _ in batch]
            try:
                found = await asyncio.to_thread(self.model.predict, pictures)
            except Exception as error:  # that of all pictures of the batch; the server goes on
                found = [error] * len(batch)
            for (_, answer), result in zip(batch, found, strict=True):
                if not answer.cancelled():  # who has asked may be gone
                    answer.set_result(result)


def application(model: fmjax.ViT) -> FastAPI:
    """The server of a model, whose classes and preprocessing come with it. UsageError: it has no classifier."""
    batches = Batches(model)
    # a program is compiled for every power of two: none of them while somebody waits
    for power in range(AT_ONCE.bit_length()):
        model.predict([Image.new("RGB", (64, 64))] * 2**power)

    @asynccontextmanager
    async def running(app: FastAPI):
        task = asyncio.create_task(batches.run())
        yield
        task.cancel()

    app = FastAPI(title=f"fmjax: {model.spec.name}", lifespan=running)

    @app.get("/")
    async def about() -> dict:
        return {"model": model.spec.name, "classes": model.facts.classes}

    @app.post("/predict")
    async def predict(request: Request) -> dict:
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > MAX_BYTES:
                raise HTTPException(413, f"the picture has over {MAX_BYTES:,} bytes")
        try:
            # what cannot be read is nobody else's concern: it never enters a batch
            picture = await asyncio.to_thread(decode, bytes(content))
            return asdict(await batches.answer(picture))
        except fmjax.DataError as error:
            raise HTTPException(422, str(error)) from error
        except asyncio.QueueFull as error:
            raise HTTPException(503, f"{WAITING} pictures are waiting; try again") from error

    return app


if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("run")
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument("--port", type=int, default=8000)
    asked = flags.parse_args()
    try:
        uvicorn.run(application(fmjax.restore(asked.run)), host=asked.host, port=asked.port)
    except fmjax.FmjaxError as error:
        raise SystemExit(str(error)) from error
