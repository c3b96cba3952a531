# A BIDS App: docker run -v IN:/in:ro -v OUT:/out IMAGE /in /out participant
FROM python:3.12-slim
COPY . /cyclegan_tf
RUN pip install --no-cache-dir /cyclegan_tf
ENTRYPOINT ["cyclegan-tf", "bids"]
