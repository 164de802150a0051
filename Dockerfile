# dfer-zoo on a CPU. Build it in the root of the repository:
#   docker build -t dfer-zoo --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
#   docker run --rm -v "$PWD:/clips" -v dfer-weights:/weights dfer-zoo predict interview.mp4
# Without TORCH_INDEX, torch comes from pip's default index, with CUDA libraries of several GB.
FROM python:3.12-slim AS build
ARG TORCH_INDEX=""
ARG EXTRAS="video,fetch,plot,tables,serve"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
RUN /opt/venv/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision torchaudio
WORKDIR /source
COPY . .
RUN /opt/venv/bin/pip install ".[$EXTRAS]"

FROM python:3.12-slim
COPY --from=build /opt/venv /opt/venv
COPY examples/serve.py /opt/serve.py
# everybody may write there, so that the image runs under any user id (docker run --user)
RUN mkdir -m 1777 /weights /clips && useradd --no-create-home --uid 1000 zoo
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp \
    DFER_ZOO_WEIGHTS=/weights HF_HOME=/weights/hub HF_HUB_DISABLE_TELEMETRY=1
# a number: Kubernetes refuses names for runAsNonRoot
USER 1000
WORKDIR /clips
ENTRYPOINT ["dfer-zoo"]
CMD ["--help"]
