# fmjax on NVIDIA GPUs: docker build -f docker/cuda.Dockerfile -t fmjax:cuda . && docker run --gpus all fmjax:cuda doctor
# CUDA itself comes with jax's packages: the host gives no more than its driver, of version 580 or newer
FROM python:3.12-slim-bookworm AS wheel
WORKDIR /src
COPY pyproject.toml MANIFEST.in README.md CHANGELOG.md LICENSE CITATION.cff ./
COPY fmjax fmjax
COPY weights_conversion weights_conversion
COPY configs configs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.12-slim-bookworm
# fastapi and uvicorn are what serve.py needs
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir "fmjax[cuda13] @ file://$(ls /wheel/*.whl)" "fastapi>=0.115" "uvicorn>=0.30"
COPY docs/examples/serve.py /opt/fmjax/serve.py
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# nothing runs as root; weights stay in a volume
RUN useradd --create-home --uid 1000 fmjax \
    && install -d -o fmjax /work /cache
ENV HF_HOME=/cache/huggingface \
    FMJAX_CACHE=/cache/fmjax
VOLUME /cache
USER 1000
WORKDIR /work
ENTRYPOINT ["fmjax"]
CMD ["--help"]
