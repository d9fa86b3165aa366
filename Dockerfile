# One image for `a2lc serve` and `a2lc worker`.
#
#   docker build --tag a2lc .                          # for machines without GPU
#   docker build --tag a2lc:cuda --build-arg TORCH=cuda .
FROM python:3.11-slim-bookworm AS build
ARG TORCH=cpu
WORKDIR /build
COPY requirements.txt ./
COPY docker/install.sh docker/
RUN docker/install.sh packages /opt/a2lc "$TORCH"
COPY pyproject.toml README.md LICENSE ./
COPY a2lc_backend ./a2lc_backend
RUN docker/install.sh program /opt/a2lc

FROM python:3.11-slim-bookworm
COPY --from=build /opt/a2lc /opt/a2lc
# The volume belongs to who runs the program, also when Docker makes it.
RUN useradd --uid 10001 --create-home a2lc && mkdir /data && chown a2lc:a2lc /data
ENV PATH=/opt/a2lc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    A2LC_DATA_DIR=/data
USER 10001
WORKDIR /home/a2lc
VOLUME /data
EXPOSE 9090
HEALTHCHECK --interval=15s --timeout=10s --start-period=90s --retries=3 CMD ["a2lc", "health"]
ENTRYPOINT ["a2lc"]
CMD ["serve"]
