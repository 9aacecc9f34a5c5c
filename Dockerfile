# docker build -t evolve .                                     # PyPI's torch: for NVIDIA cards, with their libraries
# docker build -t evolve --build-arg TORCH_INDEX=ADDRESS .     # without: the address that pytorch.org gives for the CPU
#
# docker run --rm --gpus all --shm-size 8g --user "$(id -u)" \
#   -v "$PWD:/work" -v "$HOME/.cache/huggingface:/models" evolve run search.yml
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY evolve evolve
COPY merge_core merge_core
COPY tasks tasks
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG TORCH_INDEX=""
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} -c /tmp/constraints.txt torch
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(echo /wheels/*.whl)[png]" && rm -r /wheels
# Whoever runs it has no home in here; kernels are compiled once a container.
ENV HOME=/tmp HF_HOME=/models PYTHONUNBUFFERED=1
WORKDIR /work
ENTRYPOINT ["evolve"]
