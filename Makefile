# make demo    find the planted mitotic figures in the drawn case      (about 100 MB of packages; no torch)
# make test    every test, with linters and types                      (adds torch: minutes of downloads)
# make test-container   the image, built and run (needs docker, or ENGINE=podman)
# make test-training-image   the Dockerfile's stages train and export, built and run (20 GB of disk)
# make expected         what test.sh compares with, anew: after new weights in model/, or a change that moves results
# make pictures   docs/report.jpg and docs/tiles.jpg, of the drawn case   (needs chromium)
# make train   both stages on labelled images, exported as a bundle    (HOURS of CPU)
PYTHON ?= python3
DATA   ?= ../shared/data
RUN    ?= runs/default
HOURS  ?= 0.5
BUNDLE ?= $(RUN)/model
MODEL  ?= model
CASE    = test/input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff

export YOLO_AUTOINSTALL = False
export YOLO_OFFLINE = True
export YOLO_CONFIG_DIR = /tmp/mitosis-yolo
export MITOSIS_DATA = $(DATA)

.PHONY: demo test test-container test-training-image expected lint train pictures case clean

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -e '.[evaluate]'
	touch $@

.venv-train/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-train
	.venv-train/bin/pip install -q torch==2.14.1 torchvision==0.29.1
	.venv-train/bin/pip install -q -e '.[train,quantise,evaluate,cohort,dev]'
	touch $@

demo: .venv/ready
	.venv/bin/python process.py --input test/input/interf0 --output demo-output/case
	.venv/bin/python test/show_demo.py demo-output/case

test: .venv-train/ready lint
	.venv-train/bin/python -m pytest test/unit test/end_to_end test/docs
	.venv-train/bin/python -m pytest test/training

test-container: .venv-train/ready
	.venv-train/bin/python -m pytest test/container/test_image.py test/container/test_platform.py

test-training-image: .venv-train/ready
	.venv-train/bin/python -m pytest test/container/test_training_image.py

expected: .venv/ready
	.venv/bin/python process.py --input test/input/interf0 --output test/expected --device cpu --model $(MODEL)
	git diff --stat test/expected

lint: .venv-train/ready
	.venv-train/bin/ruff check .
	.venv-train/bin/ruff format --check .
	.venv-train/bin/mypy

train: .venv-train/ready
	.venv-train/bin/python -m training.train_detector --profile cpu --data $(DATA) --run $(RUN) --hours $(HOURS)
	.venv-train/bin/python -m training.mine_candidates --data $(DATA) --run $(RUN)
	.venv-train/bin/python -m training.train_classifier --profile cpu --data $(DATA) --run $(RUN) --hours $(HOURS)
	.venv-train/bin/python -m training.export --run $(RUN) --data $(DATA) --output $(BUNDLE) $(if $(TRAINING_DATA),--training-data "$(TRAINING_DATA)")
	.venv-train/bin/python -m training.calibrate --data $(DATA) --bundle $(BUNDLE)

pictures: .venv-train/ready
	.venv-train/bin/mitosis detect $(CASE) --output demo-output --hotspot-area 0.03 --overwrite
	.venv-train/bin/python test/picture_report.py demo-output/synthetic-region docs/report.jpg
	mkdir -p demo-output/drawn
	cp $(CASE) demo-output/drawn
	cp test/planted.json demo-output/drawn/MIDOG++.json
	.venv-train/bin/python -m training.prepare_data --format midog++ --source demo-output/drawn --output demo-output/data --spacing 0.25
	.venv-train/bin/python -m training.show_tiles --data demo-output/data --profile paper --output docs/tiles.jpg

case: .venv/ready
	.venv/bin/python test/make_case.py

clean:
	rm -rf .venv .venv-train demo-output
