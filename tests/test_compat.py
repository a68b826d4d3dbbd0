"""Private parts of libraries, as knife/compat uses them: these tests fail if a library changes.

What the parts are for is tested where they are used; these tests check what they depend on.
"""

import inspect
import logging
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
import ray
import torch
from mlflow.entities import Metric, RunData
from ray._private import ray_constants, services, worker
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    LlamaForCausalLM,
    T5ForConditionalGeneration,
)

from knife.compat import bm25s, datasets, mlflow, transformers
from knife.compat import ray as private
from knife.compat import torch as private_torch


def test_an_address_of_ray_is_read_and_asked_within_seconds() -> None:
    # Ray replaces the loopback address with another address of this machine.
    assert private.bootstrap_address("127.0.0.1:1").endswith(":1")
    begun = time.monotonic()
    with pytest.raises(grpc.RpcError):
        private.ask_for_nodes("127.0.0.1:1", 1)
    assert time.monotonic() - begun < 30
    parameters = inspect.signature(services.get_node_to_connect_for_driver).parameters
    assert {"gcs_client", "timeout_seconds"} <= set(parameters)
    assert callable(ray._raylet.GcsClient)


def test_ray_keeps_to_loopback_where_it_has_no_clusters() -> None:
    with private.on_loopback():
        assert ray_constants.ENABLE_RAY_CLUSTER is False
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
    assert ray_constants.ENABLE_RAY_CLUSTER is True


def test_lines_for_the_driver_are_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    def tell(line: str) -> None:
        worker.print_to_stdstream(
            {"lines": [line], "pid": 1, "ip": "", "is_err": False}, ignore_prefix=True
        )

    with private.printing_lines(lambda lines: lines != ["unwanted"]):
        tell("unwanted")
        tell("wanted")
    tell("unwanted")
    assert capsys.readouterr().out.split() == ["wanted", "unwanted"]


def test_the_processes_of_a_session_are_known() -> None:
    assert hasattr(worker, "_global_node")
    for name in ("live_processes", "dead_processes"):
        assert callable(getattr(ray._private.node.Node, name))


def test_the_mark_is_in_rays_key_value_store() -> None:
    from ray.experimental import internal_kv

    assert list(inspect.signature(internal_kv._internal_kv_put).parameters)[:2] == ["key", "value"]
    assert "key" in inspect.signature(internal_kv._internal_kv_exists).parameters


def test_a_folder_is_walked_as_ray_packs_it(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("ignored.txt\n")
    for name in ("kept.txt", "ignored.txt", "excluded.txt"):
        (tmp_path / name).touch()
    found: list[str] = []
    private.walk_package(
        tmp_path,
        ["excluded.txt"],
        lambda _, excluded: excluded,
        lambda path: found.append(path.name),
        gitignore=True,
        log=logging.getLogger("quiet"),
    )
    assert {"kept.txt"} <= set(found)
    assert not {"ignored.txt", "excluded.txt"} & set(found)


def test_the_classes_of_ray_that_are_derived_from() -> None:
    assert "on_start" in vars(private.torch_backend())
    assert "before_execution_starts" in vars(private.execution_callback())
    client = private.job_client(lambda _: (1.0, 1.0))
    own = inspect.signature(client.__mro__[1]._do_request).parameters
    assert list(own)[:3] == ["self", "method", "endpoint"]
    assert any(each.kind is each.VAR_KEYWORD for each in own.values())


def test_deepspeed_is_imported_without_mlflow() -> None:
    code = "import sys; import knife.compat.deepspeed; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_zero_is_started_without_torchs_compiler() -> None:
    """The optimizer that asks for it is looked up by the check of every ZeRO stage."""
    from deepspeed.runtime.zero.utils import is_zero_supported_optimizer

    assert "muon_optimizer import" in inspect.getsource(is_zero_supported_optimizer)
    code = "import sys; import knife.compat.deepspeed; print('torch._inductor' in sys.modules, "
    code += "'deepspeed.runtime.zero.muon.muon_optimizer' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False True"


def test_the_parts_of_deepspeed_that_are_replaced_are_used() -> None:
    from deepspeed.runtime import bf16_optimizer
    from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer

    from knife.compat.deepspeed import deepspeed

    engine = inspect.getsource(deepspeed.runtime.engine)
    for name in ("checkpoint_engine", "clip_fp32_gradients", "_global_grad_norm"):
        assert f"self.{name}" in engine
    backend = inspect.getsource(sys.modules["deepspeed.comm.torch"])
    assert "deepspeed.ops.__compatible_ops__" in backend
    assert "see_memory_usage(" in inspect.getsource(bf16_optimizer)
    for name in ("refresh_fp32_params", "initialize_optimizer_states"):
        assert callable(getattr(FP16_UnfusedOptimizer, name))


def test_mlflow_tells_the_steps_of_newest_metrics() -> None:
    data = RunData(metrics=[Metric("loss", 0.5, 0, 7)])
    assert [(m.key, m.step) for m in mlflow.newest_metrics(data)] == [("loss", 7)]


def test_transformers_tells_what_a_class_can() -> None:
    assert transformers.model_class_of(AutoModel, BertConfig()) is BertModel
    for name in ("sdpa", "flash_attention_2"):
        assert transformers.supports_attention(BertModel, name)
    assert transformers.supports_attention(LlamaForCausalLM, "flex_attention")
    assert not transformers.supports_attention(T5ForConditionalGeneration, "flash_attention_2")


def test_the_keys_of_a_state_are_matched_without_loading() -> None:
    with torch.device("meta"):
        model = BertModel(BertConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2))
    state = {name: tensor for name, tensor in model.state_dict().items() if "pooler" not in name}
    found = transformers.match_keys(model, {**state, "more": torch.empty(1, device="meta")})
    assert set(found.missing_keys) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert set(found.unexpected_keys) == {"more"}
    assert transformers.attention_of(model.config) in ("sdpa", "eager")


def test_torch_looks_for_its_store_and_its_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    rendezvous = sys.modules["torch.distributed.rendezvous"]
    monkeypatch.setattr(rendezvous, "TCPStore", rendezvous.TCPStore)
    private_torch.set_rendezvous_store(dict)
    assert rendezvous.TCPStore is dict
    assert "TCPStore(" in inspect.getsource(rendezvous)
    assert private_torch.compilers()


def test_datasets_keeps_to_its_cache_for_a_while() -> None:
    import datasets as library

    before = library.config.HF_HUB_OFFLINE
    with datasets.offline():
        assert library.config.HF_HUB_OFFLINE is True
        with pytest.raises((ConnectionError, FileNotFoundError)):
            library.load_dataset("nobody/nothing")
    assert before == library.config.HF_HUB_OFFLINE


def test_the_stop_words_are_those_that_keys_depend_on() -> None:
    assert len(bm25s.stop_words()) == 179


def test_a_model_is_saved_without_importing_deepspeed(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util\n"
        "from pathlib import Path\n"
        "from transformers import BertConfig, BertModel\n"
        "from knife.compat import transformers\n"
        "if sys.argv[2] == 'without': transformers.find_spec = lambda _: None\n"
        "sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)\n"
        "model = BertModel(BertConfig(vocab_size=9, intermediate_size=8, **sizes))\n"
        "transformers.save_model(model, Path(sys.argv[1]), model.state_dict())\n"
        "print('deepspeed' in sys.modules)\n"
    )
    # Without accelerate, as far as this package can tell.
    for way, imported in (("with", "False"), ("without", "True")):
        folder = tmp_path / way
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder), way],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        assert (folder / "model.safetensors").is_file()
        # If transformers itself no longer imports it, what we replace there can go.
        assert done.stdout.split()[-1] == imported
