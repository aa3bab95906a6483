"""What each page leaves to its reader, and which of its commands are not run, with the reason."""

from tests.doc_blocks import Page

GENERATOR = {
    "g.safetensors": "examples/demo/generator.safetensors",
    "g.toml": "examples/demo/generator.toml",
}
ADA = "tests/checkpoints/fixtures/stylegan2_ada/file_protocol4.pkl"
INTERPRETER = {
    "interpreter.safetensors": "demo/interpreter.safetensors",
    "interpreter.toml": "demo/interpreter.toml",
}
DEMO = ".venv/bin/python -m service run --bundle demo=demo/bundle --listen 127.0.0.1:50051"
EXPORT = (
    ".venv/bin/python -m export bundle --generator g.safetensors "
    "--interpreter interpreter.safetensors"
)
LABELME = """.venv/bin/python -c '
import json, pathlib
left = {"label": "left", "shape_type": "rectangle", "points": [[0, 0], [4, 8]]}
page = {"imageHeight": 8, "imageWidth": 8, "shapes": [left]}
folder = pathlib.Path("set/labelme")
folder.mkdir()
for image in pathlib.Path("set/images").iterdir():
    (folder / image.name).with_suffix(".json").write_text(json.dumps(page))
'"""
VIEWS = (
    ".venv/bin/python -m examples.demo.cameras --out cameras.csv",
    ".venv/bin/python -m training views --generator g.safetensors --cameras cameras.csv "
    "--out views.safetensors --count 4",
    f"{EXPORT} --views views.safetensors --out views --no-half --parity-samples 1",
    ".venv/bin/python -m service run --bundle demo=views --listen 127.0.0.1:50051",
)
TRAINING = """
from labelmint.torch import LabelStream

def step(images, masks):
    assert len(images) == len(masks)

def state_of(rank):
    options = dict(batch_size=16, seed=7, keep_fraction=0.9, end_index=320)
    part = LabelStream("localhost:50051", rank=rank, world_size=2, **options)
    for batch in part:
        part.consumed(batch)
        return part.state_dict()

state_of_rank_0, state_of_rank_1 = state_of(0), state_of(1)
"""
GPU = "needs an NVIDIA GPU; tests/engines has the stand-in device"
CLUSTER = "needs a cluster; tests/deploy renders the chart and runs its commands"
PUBLISHED = "needs a builder and a registry; tests/deploy/test_publish.py has one in memory"
HOURS = "takes hours"
RAY = "Ray forks, which a process with gRPC must not; tests/client/test_ray.py runs the same"

PAGES = {
    "README.md": Page(
        files={"network.pkl": ADA},
        by_hand={
            "# label the images of set/images, for example in LabelMe, into set/labelme": LABELME
        },
        not_run={"make demo": "CI runs it before the tests, see .ci/run"},
    ),
    "benchmarks/README.md": Page(
        not_run={"make demo": "CI runs it before the tests, see .ci/run", "make bench": HOURS}
    ),
    "docs/checkpoints.md": Page(
        files={"network.pkl": ADA},
        not_run={
            "stylegan.pt": "the published weights may not be passed on; "
            "tests/export/test_published_bundle.py exports small ones of the same kind"
        },
    ),
    "docs/bench_world.md": Page(
        smaller={"demo/world --count 1000": "world --count 4",
                 "demo/real --count 1000": "real --count 4"},
        not_run={
            "bench_world.cache": HOURS,
            "train_generator": "takes days; tests/examples/bench_world/test_generator.py trains",
            "judge_generator": "needs weights of the training",
        },
    ),
    "docs/datasets.md": Page(
        before=(DEMO,),
        smaller={"--count 1000": "--count 4", "end_index=2048": "end_index=16"},
        not_run={"import fiftyone": "1.2 GB; tests/datasets/test_fiftyone.py runs it"},
    ),
    "docs/engines.md": Page(
        files={**GENERATOR, **INTERPRETER},
        not_run={
            "demo/bundle --cache engines": GPU,
            "--engine tensorrt ": GPU,
            "--runtime tensorrt-rtx": "tests/export/test_rtx_build.py builds such plans",
            "--engine tensorrt-rtx": GPU,
            "--out car --fused": "tests/export/test_fused_engine.py compiles such kernels",
            "engine car --fused": GPU,
            "--engine tensorrt-fused": GPU,
            "pytest -m gpu": GPU,
            "benchmarks.gpu": GPU,
        },
    ),
    "docs/first_day.md": Page(
        smaller={
            "--out interpreter.safetensors": "--out interpreter.safetensors --steps 20 --members 2",
            "--calibrate 4096": "--calibrate 64 --no-half",
        },
    ),
    "docs/inverse_graphics.md": Page(
        files={**GENERATOR, **INTERPRETER, "photos": "demo/labels/images"},
        before=VIEWS,
        smaller={
            "localhost:50051 --out shapes.safetensors": "localhost:50051 --out shapes.safetensors "
            "--objects 4 --steps 2 --batch 2",
            "--views-per-object 8 --count 2048": "--format png --views-per-object 4 --count 8",
            "--source sets --out shapes.safetensors": "--source sets --out again.safetensors "
            "--steps 2 --batch 2",
        },
    ),
    "docs/inversion.md": Page(
        files={**GENERATOR, "photos": "demo/labels/images"},
        smaller={
            "--out encoder.safetensors": "--out encoder.safetensors "
            "--latent-steps 2 --image-steps 2",
            "--out set": "--out set --steps 2",
        },
    ),
    "docs/labels.md": Page(
        files=GENERATOR,
        by_hand={
            "# label the images of both sets, see below":
            ".venv/bin/python -m examples.demo.labels set held-out",
            '# export the task from CVAT as "CVAT for images 1.1", and unzip it to annotated/':
            ".venv/bin/python -m training labels convert set --from masks --to cvat --images set "
            "--out annotated; rm -r set/masks set/classes.toml set/keypoints.json",
        },
        smaller={"--out interpreter.safetensors": "--out interpreter.safetensors --steps 20",
                 "--calibrate 4096": "--calibrate 64 --no-half"},
        not_run={".venv/bin/pip install": "make setup has installed it"},
    ),
    "docs/monitoring.md": Page(
        not_run={
            "prometheus --config": "tests/service/test_observability.py starts it with the page's "
            "configuration, where it is installed"
        }
    ),
    "docs/operations.md": Page(
        not_run={"helm ": CLUSTER, "make ": PUBLISHED}
    ),
    "docs/refiner.md": Page(
        files={
            **GENERATOR, **INTERPRETER, "photos": "demo/labels/images", "my-bundle": "demo/bundle",
        },
        before=(DEMO,),
        smaller={"--out refiner.safetensors": "--out refiner.safetensors --steps 2 --images 32 "
                 "--segmenter-steps 2"},
    ),
    "docs/scale.md": Page(
        before=(DEMO,),
        not_run={
            "LabelSource(": RAY,
            "Labeller,": RAY,
            "pip install": "make setup has installed the one; the other is the checkout itself",
        }
    ),
    "docs/serving.md": Page(
        before=(
            ".venv/bin/python -m trustme --quiet",
            "mv server.pem tls.crt",
            "mv server.key tls.key",
            "echo 'trainer 0123456789abcdef' > tokens",
        )
    ),
    "docs/studio.md": Page(
        not_run={
            ".venv/bin/pip install": "make setup has installed it",
            "python -m studio": "tests/studio/test_browser.py starts it, in a browser",
            "python -m export certify": "needs a person's reviews; tests/export/test_certify.py",
        }
    ),
    "docs/training.md": Page(
        before=(DEMO,), smaller={"end_index=320": "end_index=64"}, given=TRAINING
    ),
    "docs/kserve.md": Page(
        not_run={"kubectl ": CLUSTER}
    ),
    "docs/rare.md": Page(
        # Of a predicate that more samples meet, so that few are enough to fit it.
        smaller={
            "--name big-hair": "--name big-hair --samples 512",
            "share('hair') >= 0.2": "share('hair') >= 0.1",
            "--edit glasses": "--edit glasses --samples 512",
            "count=8": "count=2",
        },
    ),
    "docs/streams.md": Page(
        before=(DEMO,),
        smaller={"report.html --where": "report.html --count 8 --where",
                 "--count 16": "--count 2", "--filter-report 64": "--filter-report 16",
                 "where=where, count=8": "where=where, count=2", "end_index=320": "end_index=32"},
    ),
    "docs/triton_client.md": Page(
        smaller={"range(0, 64, 16)": "range(0, 8, 2)", "first + 16": "first + 2", "[16]": "[2]"},
    ),
    "docs/views.md": Page(
        files={**GENERATOR, **INTERPRETER},
        by_hand={
            "# look at cameras.png, fill in azimuth_deg and elevation_deg, delete unclear lines":
            "rm cameras.csv; .venv/bin/python -m examples.demo.cameras --out cameras.csv",
        },
        smaller={"count=240": "count=24", "--out my-bundle": "--out my-bundle --no-half"},
    ),
    "helm/labelmint/README.md": Page(not_run={"helm ": CLUSTER}),
}  # fmt: skip
