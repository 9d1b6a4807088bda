# docker build -t spikedeblur .
# docker run --rm --gpus all --shm-size=2g -v "$PWD:/work" spikedeblur doctor
#
# Without a GPU, --build-arg PIP_EXTRA_INDEX_URL=<torch's index of CPU wheels> is far smaller.
# The Python that constraints.txt was written on.
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL
WORKDIR /opt/spikedeblur
COPY . .
RUN pip install --no-cache-dir -c constraints.txt '.[cloud,hdf5,video]' \
    && useradd --create-home --uid 1000 spikedeblur \
    && install -d -o spikedeblur /work

USER 1000
WORKDIR /work
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["spikedeblur"]
CMD ["--help"]
