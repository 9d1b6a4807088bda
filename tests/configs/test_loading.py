import subprocess
import sys

import pytest
import yaml

from spikedeblur.configs import Config, ConfigError, dump_config, load_config
from spikedeblur.configs.loading import PACKAGE, key_paths
from spikedeblur.configs.schema.values import Section

BASELINE = "configs/deblur/vrt_spike_baseline.yaml"
QUICKSTART = "configs/deblur/quickstart.yaml"

# Every value that the reference document states (its sections 1 to 7).
REFERENCE = {
    "DATA.ROOT": "data/processed/gopro_spike_unified",
    "DATA.SPIKE_DIR": "spike",
    "DATA.VOXEL_CACHE_DIRNAME": "spike_vox",
    "DATA.USE_PRECOMPUTED_VOXELS": False,
    "DATA.ALIGN_LOG_PATHS": ("outputs/logs/align_x4k1000fps.txt",),
    "DATA.CLIP_LEN": 5,
    "DATA.CROP_SIZE": 256,
    "DATA.K": 32,
    "DATA.NUM_VOXEL_BINS": 32,
    "DATA.IMAGE_EXTS": (".png", ".jpg", ".jpeg", ".bmp"),
    "DATA.NORM.MEAN": 0.0,
    "DATA.NORM.STD": 1.0,
    "DATA.USE_RAM_CACHE": True,
    "DATA.CACHE_SIZE_GB": 4.0,
    "MODEL.USE_SPIKE": True,
    "MODEL.VRT_CFG": "third_party/VRT/options/deblur/vrt_base.yaml",
    "MODEL.CHANNELS_PER_SCALE": (96, 96, 96, 96),
    "MODEL.SPIKE_ENCODER.TEMPORAL_STRIDES": None,
    "MODEL.SPIKE_ENCODER.SPATIAL_STRIDES": None,
    "MODEL.SPIKE_TSA.HEADS": 4,
    "MODEL.SPIKE_TSA.DROPOUT": 0.0,
    "MODEL.SPIKE_TSA.MLP_RATIO": 2,
    "MODEL.SPIKE_TSA.ADAPTIVE_CHUNK": True,
    "MODEL.SPIKE_TSA.MAX_BATCH_TOKENS": 49152,
    "MODEL.SPIKE_TSA.CHUNK_SIZE": 64,
    "MODEL.SPIKE_TSA.CHUNK_SHAPE": "square",
    "MODEL.FUSE.TYPE": "TemporalCrossAttn",
    "MODEL.FUSE.HEADS": 4,
    "MODEL.FUSE.ADAPTIVE_CHUNK": True,
    "MODEL.FUSE.MAX_BATCH_TOKENS": 49152,
    "MODEL.FUSE.CHUNK_SIZE": 64,
    "MODEL.FUSE.CHUNK_SHAPE": "square",
    "MODEL.USE_CHECKPOINT_ATTN": True,
    "MODEL.USE_CHECKPOINT_FFN": True,
    "TRAIN.EPOCHS": 80,
    "TRAIN.BATCH_SIZE": 1,
    "TRAIN.NUM_WORKERS": 8,
    "TRAIN.GRADIENT_ACCUMULATION_STEPS": 6,
    "TRAIN.OPTIM.LR": 2e-4,
    "TRAIN.OPTIM.WEIGHT_DECAY": 1e-4,
    "LOSS.CHARBONNIER.DELTA": 1e-3,
    "LOSS.CHARBONNIER.WEIGHT": 1.0,
    "LOSS.VGG_PERCEPTUAL.LAYERS": ("relu3_3",),
    "LOSS.VGG_PERCEPTUAL.WEIGHT": 0.1,
    # Ours: what leaves its architecture as it is.
    "MODEL.TRUNK_SCALE": 1,
    "MODEL.SPIKE_SKIP": False,
    "DATA.NORM.MODE": "log1p",
}

# The reference document's section 7.1, as it stands there.
REFERENCE_FRAGMENT = """
# 数据配置
DATA:
  ROOT: data/processed/gopro_spike_unified
  CLIP_LEN: 5
  CROP_SIZE: 256
  K: 32
  USE_RAM_CACHE: true
  CACHE_SIZE_GB: 4.0

# 模型配置
MODEL:
  USE_SPIKE: true
  CHANNELS_PER_SCALE: [96, 96, 96, 96]
  SPIKE_TSA:
    HEADS: 4
    ADAPTIVE_CHUNK: true
  FUSE:
    HEADS: 4
    ADAPTIVE_CHUNK: true

# 训练配置
TRAIN:
  EPOCHS: 80
  BATCH_SIZE: 1
  NUM_WORKERS: 8
  GRADIENT_ACCUMULATION_STEPS: 6
  OPTIM:
    LR: 0.0002
    WEIGHT_DECAY: 0.0001

# 损失配置
LOSS:
  CHARBONNIER:
    WEIGHT: 1.0
  VGG_PERCEPTUAL:
    WEIGHT: 0.1
"""


def value(config, key_path):
    for key in key_path.split("."):
        config = getattr(config, key)
    return config


def test_baseline_has_every_value_of_the_reference():
    config = load_config(BASELINE)
    assert {key: value(config, key) for key in REFERENCE} == REFERENCE


def test_reference_fragment_loads_unchanged_and_is_completed_by_defaults(tmp_path):
    path = tmp_path / "reference.yaml"
    path.write_text(REFERENCE_FRAGMENT, encoding="utf-8")
    config = load_config(path)
    assert {key: value(config, key) for key in REFERENCE} == REFERENCE


def test_baseline_file_writes_out_every_key_but_the_networks_own():
    written = yaml.safe_load((PACKAGE / BASELINE).read_text(encoding="utf-8"))

    def leaves(section, prefix=""):
        for key, below in section.items():
            if isinstance(below, dict):
                yield from leaves(below, f"{prefix}{key}.")
            else:
                yield prefix + key

    expected = {
        key
        for key in key_paths(Config)
        if not key.startswith("MODEL.VRT.")
        and key != "MODEL.VRT"
        and not isinstance(value(Config(), key), Section)
    }
    assert set(leaves(written)) == expected


def test_network_file_gives_the_published_arguments():
    vrt = load_config(BASELINE).MODEL.VRT
    assert vrt.depths == (8,) * 7 + (4,) * 4
    assert vrt.embed_dims == (96,) * 7 + (120,) * 4
    assert (vrt.window_size, vrt.pa_frames, vrt.deformable_groups) == ((6, 8, 8), 2, 16)


def test_arguments_under_model_vrt_override_the_networks_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vrt.yaml").write_text("drop_path_rate: 0.1\nmul_attn_ratio: 0.5\n")
    (tmp_path / "c.yaml").write_text("MODEL: {VRT_CFG: vrt.yaml, VRT: {drop_path_rate: 0.05}}\n")
    vrt = load_config("c.yaml").MODEL.VRT
    assert (vrt.drop_path_rate, vrt.mul_attn_ratio, vrt.mlp_ratio) == (0.05, 0.5, 2.0)


@pytest.mark.parametrize("name", [BASELINE, QUICKSTART])
def test_packaged_files_are_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(name).DATA.K == 32


def test_file_in_the_current_folder_goes_before_the_packaged_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/deblur").mkdir(parents=True)
    (tmp_path / QUICKSTART).write_text("TRAIN: {SEED: 77}\n")
    assert load_config(QUICKSTART).TRAIN.SEED == 77


@pytest.mark.parametrize("name", [BASELINE, QUICKSTART])
def test_dumped_configuration_loads_to_the_same_without_the_networks_file(name, tmp_path):
    config = load_config(name, ["TRAIN.OPTIM.LR=1e-4"])
    text = dump_config(config).replace("vrt_base.yaml", "gone.yaml")
    (tmp_path / "config.yaml").write_text(text)
    again = load_config(tmp_path / "config.yaml")
    assert again.model_dump(exclude={"MODEL": {"VRT_CFG"}}) == config.model_dump(
        exclude={"MODEL": {"VRT_CFG"}}
    )


def test_overrides_are_read_as_yaml():
    config = load_config(
        QUICKSTART,
        [
            "TRAIN.OPTIM.LR=1e-4",  # a string in YAML 1.1
            "TRAIN.AMP=off",  # false in YAML 1.1
            "DATA.ALIGN_LOG_PATHS=[a.txt, b.txt]",
            "TRAIN.GRAD_CLIP=null",
            "MODEL.VRT.drop_path_rate=0.1",
        ],
    )
    assert config.TRAIN.OPTIM.LR == 1e-4
    assert config.TRAIN.AMP == "off"
    assert config.DATA.ALIGN_LOG_PATHS == ("a.txt", "b.txt")
    assert config.TRAIN.GRAD_CLIP is None
    assert config.MODEL.VRT.drop_path_rate == 0.1


def test_max_steps_rules_unless_epochs_is_overridden():
    steps = load_config(QUICKSTART).TRAIN.MAX_STEPS
    assert steps is not None
    assert load_config(QUICKSTART, ["TRAIN.EPOCHS=1"]).TRAIN.MAX_STEPS is None
    both = load_config(QUICKSTART, ["TRAIN.EPOCHS=1", "TRAIN.MAX_STEPS=7"])
    assert both.TRAIN.MAX_STEPS == 7


def test_number_of_bins_may_be_given_by_either_name(tmp_path):
    (tmp_path / "c.yaml").write_text("DATA: {NUM_VOXEL_BINS: 16}\n")
    data = load_config(tmp_path / "c.yaml").DATA
    assert (data.K, data.NUM_VOXEL_BINS) == (16, 16)


def test_heading_without_keys_takes_the_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("DATA:\nMODEL:\n  FUSE:\nTRAIN:\nLOSS:\n")
    config = load_config(tmp_path / "c.yaml")
    assert config == load_config(BASELINE)


def test_a_configuration_without_a_scheduler_warms_up(tmp_path):
    """The reference names cosine with warm-up, and its YAML has no keys for it."""
    (tmp_path / "c.yaml").write_text("TRAIN: {EPOCHS: 3}\n")
    assert load_config(tmp_path / "c.yaml").TRAIN.SCHEDULER.WARMUP_STEPS == 1000


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("TRAIN.OPTIM.LRR=1", "did you mean TRAIN.OPTIM.LR?"),
        ("DATA.CROPSIZE=64", "did you mean DATA.CROP_SIZE?"),
        ("DATA.crop_size=64", "did you mean DATA.CROP_SIZE?"),
        ("TRAIN.PHASES=[{FROM: 4, CROP: 32}]", "did you mean TRAIN.PHASES.0.CROP_SIZE?"),
        ("MODELS.USE_SPIKE=true", "did you mean MODEL?"),
        ("TRAIN.LR=1", "did you mean TRAIN.OPTIM.LR?"),
        ("MODEL.VRT.pa_frame=2", "did you mean MODEL.VRT.pa_frames?"),
        ("LOSS.CHARBONNIER.EPSILON=1", "give one of DELTA, WEIGHT"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_right_name(wrong, hint):
    with pytest.raises(ConfigError) as error:
        load_config(QUICKSTART, [wrong])
    message = str(error.value)
    assert "--set: unknown key " + wrong.split("=")[0].removesuffix(".USE_SPIKE") in message
    assert hint in message


def test_unknown_key_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("TRAIN: {EPOCH: 3}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: unknown key TRAIN\.EPOCH; did you mean"):
        load_config(path)


def test_every_wrong_value_is_named_at_once():
    with pytest.raises(ConfigError) as error:
        load_config(QUICKSTART, ["TRAIN.EPOCHS=0", "DATA.NORM.MODE=log2", "DATA.AUGMENT=1"])
    for key in ("TRAIN.EPOCHS", "DATA.NORM.MODE", "DATA.AUGMENT"):
        assert key in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["DATA.K=16", "DATA.NUM_VOXEL_BINS=32"], "K and NUM_VOXEL_BINS equal"),
        (["DATA.CROP_SIZE=72"], "multiple of 16"),
        (["MODEL.CHANNELS_PER_SCALE=[32, 32, 32, 48]"], "embed_dims of stages 1 to 4"),
        (["MODEL.FUSE.HEADS=5"], "MODEL.FUSE.HEADS: 5 heads do not divide"),
        (["MODEL.SPIKE_TSA.HEADS=3"], "MODEL.SPIKE_TSA.HEADS: 3 heads do not divide"),
        (["MODEL.FUSE.ENABLED=false", "MODEL.SPIKE_SKIP=false"], "leaves only MODEL.SPIKE_SKIP"),
        (["MODEL.SPIKE_ENCODER.TEMPORAL_STRIDES=[1, 2, 1]"], r"expected \[1, 1, 1\] or null"),
        (["MODEL.TRUNK_SCALE=3"], "1, 2 or 4"),
        (["MODEL.VRT.num_heads=[4, 4]"], "one length"),
        (["MODEL.VRT.num_heads=[5, 4, 4, 4, 4, 4, 4, 4]"], "5 heads do not divide 32"),
        (["MODEL.VRT.indep_reconsts=[3]"], "indices of stage 8"),
        (["MODEL.VRT.embed_dims=[32, 32, 32, 32, 64, 32, 32, 32]"], "stages 5, 6, 7 add to"),
        (["MODEL.VRT.pa_frames=2", "MODEL.VRT.deformable_groups=12"], "12 groups do not divide"),
        (["MODEL.VRT.depths=[1, 1, 2147483648, 1, 1, 1, 1, 1]"], "less than or equal to 1000"),
        (["MODEL.VRT.pa_frames=4"], "0 or 2"),
        (["LOSS.VGG_PERCEPTUAL.LAYERS=[relu9_9]"], "relu3_3"),
        (["LOSS.VGG_PERCEPTUAL.LAYERS=[]"], "LAYERS"),
        (["LOSS.CHARBONNIER.WEIGHT=0"], "WEIGHT above 0"),
        (["TRAIN.SCHEDULER.MIN_LR=1"], "at most TRAIN.OPTIM.LR"),
        (["TRAIN.PHASES=[{FROM: 4}, {FROM: 4}]"], r"FROM to rise .*\[4, 4\]"),
        (["TRAIN.PHASES=[{FROM: 4, CROP_SIZE: 20}]"], "from step 4 on: .*multiple of 16"),
        (["TRAIN.PHASES=[{FROM: 4}]", "TRAIN.MAX_STEPS=null"], "expected MAX_STEPS, got null"),
        (["TRAIN.PHASES=[{CROP_SIZE: 32}]"], r"TRAIN\.PHASES\.0\.FROM: .*required"),
        (["TRAIN.PHASES=4"], r"TRAIN\.PHASES"),
        (["TRAIN.SCHEDULER.TYPE=linear"], "'cosine' or 'wsd'"),
        (["TRAIN.SCHEDULER.DECAY=1"], "TRAIN.SCHEDULER.DECAY"),
        (["TRAIN.EMA_DECAY=[0.9, 0.9]"], "two alike"),
        (["TRAIN.EMA_DECAY=[]"], "TRAIN.EMA_DECAY"),
        (["TRAIN.EMA_DECAY=[0.9, 1]"], "TRAIN.EMA_DECAY"),
        (["TRAIN.OPTIM.LR=.nan"], "TRAIN.OPTIM.LR"),
        (["TRAIN.OPTIM.LR=true"], "TRAIN.OPTIM.LR"),
        (["TRAIN.BATCH_SIZE=true"], "TRAIN.BATCH_SIZE"),
        (["DATA.NORM.MEAN=null"], "both given or both null"),
        (["DATA.NORM.MEAN=0.5"], "MODE relative has its own scale"),
        (["DATA.IMAGE_EXTS=[png]"], "DATA.IMAGE_EXTS"),
        (["TRAIN=5"], "TRAIN"),
    ],
)
def test_values_that_can_not_work_are_refused(overrides, expected):
    with pytest.raises(ConfigError, match=expected):
        load_config(QUICKSTART, overrides)


def test_control_without_spikes_ignores_spike_settings():
    config = load_config(QUICKSTART, ["MODEL.USE_SPIKE=false", "MODEL.FUSE.HEADS=5"])
    assert not config.MODEL.USE_SPIKE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TRAIN: {EPOCHS: 1, EPOCHS: 2}", "EPOCHS is given twice"),
        ("TRAIN: [", "expected YAML"),
        ("- TRAIN", "expected sections"),
        ("MODEL: {VRT_CFG: nowhere.yaml}", r"MODEL\.VRT_CFG.*nowhere\.yaml.*check the path"),
        ("TRAIN: !!python/object/apply:os.system [ls]", "expected YAML"),
    ],
)
def test_unusable_file_is_refused_by_name(text, expected, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as error:
        load_config(path)
    assert "mine.yaml" in str(error.value)


def test_wrong_key_in_the_networks_file_names_that_file(tmp_path):
    (tmp_path / "vrt.yaml").write_text("depth: [8]\n")
    with pytest.raises(ConfigError, match=r"vrt\.yaml: unknown key depth; did you mean depths"):
        load_config(BASELINE, [f"MODEL.VRT_CFG={tmp_path / 'vrt.yaml'}"])


@pytest.mark.parametrize(
    "override", ["TRAIN.EPOCHS", "=3", "TRAIN..EPOCHS=3", "TRAIN.EPOCHS=[", "TRAIN.EPOCHS.X=1"]
)
def test_malformed_override_is_refused(override):
    with pytest.raises(ConfigError, match="--set"):
        load_config(BASELINE, [override])


def test_missing_file_is_refused():
    with pytest.raises(ConfigError, match="expected a configuration file, found none"):
        load_config("configs/deblur/missing.yaml")


def test_every_key_is_explained():
    def fields(schema):
        for name, field in schema.model_fields.items():
            yield name, field.description
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                yield from fields(field.annotation)

    unexplained = [name for name, text in fields(Config) if not text]
    assert unexplained == []


def test_configuration_can_not_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_config(BASELINE).TRAIN.EPOCHS = 3


def test_loading_a_configuration_imports_no_torch():
    code = (
        "import sys; from spikedeblur.configs import load_config; "
        f"load_config('{BASELINE}'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
