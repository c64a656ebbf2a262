"""The way through a CUDA GPU, proved without one: every array on one device, the processor waits once a batch."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_gpu import CUDA, FakeGpu, FarDevice, Replies, cuda_of
from LesionDecompLib.models import precision
from LesionDecompLib.models.bundle import ModelBundle
from LesionDecompLib.models.memory import batch_bytes, is_out_of_memory, weight_bytes
from LesionDecompLib.models.networks import UNet
from LesionDecompLib.models.precision import computing_in, fast_precision, on_device
from LesionDecompLib.models.runtime import ReadyNetwork, inference_network, network_precision
from LesionDecompLib.pipeline import Segmenter
from LesionDecompLib.report.memory import high_water_mark_mib
from LesionDecompLib.segmentation import resampling, smoothing
from LesionDecompLib.training import lesion_task, losses
from LesionDecompLib.training.config import PRESETS, load_config
from LesionDecompLib.training.data.slices import SliceSet
from LesionDecompLib.training.lesion_task import LesionTask
from repository import MODULE
from tiny_bundle import ARGUMENTS, INPUT, METADATA
from tiny_training import TINY, write_training_set


@pytest.fixture(autouse=True)
def _no_fake_matrix_is_kept():
    smoothing._gaussian.cache_clear()
    yield
    smoothing._gaussian.cache_clear()


@pytest.fixture
def plain(untrained_segmenter, tmp_path) -> Segmenter:
    """Small networks on the processor, by torch."""
    torch.manual_seed(3)
    lungs = ModelBundle.save(tmp_path / "lungs", UNet(**ARGUMENTS), {**METADATA, "input": INPUT | {"spacing_mm": 8.0}})
    return Segmenter(untrained_segmenter.lesion_bundle, lungs, "cpu", engine="torch")


def on_gpu(plain: Segmenter, gpu: FakeGpu, kind: torch.dtype) -> Segmenter:
    """The same on the GPU."""
    there = Segmenter(plain.lesion_bundle, plain.lung_bundle, "cuda:0", plain.batch_size)
    for bundle in (plain.lesion_bundle, plain.lung_bundle):
        network = inference_network(bundle, torch.device("cpu"), kind)
        there._networks[bundle.task] = ReadyNetwork(gpu.placed(network), "torch", kind)
    return there


class TestInference:
    @pytest.mark.parametrize(("capability", "kind"), [((8, 0), torch.bfloat16), ((7, 5), torch.float16)])
    def test_a_whole_case_stays_on_the_gpu_and_comes_back_once_a_batch(
        self, plain, chest_case, monkeypatch, capability, kind
    ):
        volume, lungs = chest_case
        replies = Replies()
        with replies.recorded(monkeypatch):
            expected = plain.run(volume, lung_mask=lungs)
        recorded_heat = len(replies.values)
        gpu = FakeGpu(replies)
        with cuda_of(capability, monkeypatch) as pinned:
            segmenter = on_gpu(plain, gpu, kind)
            assert segmenter.device == CUDA
            with gpu:
                found = segmenter.run(volume, lung_mask=lungs)
        np.testing.assert_array_equal(found.heat, expected.heat)
        batches = -(-np.count_nonzero(lungs.any(axis=(1, 2))) // plain.batch_size)
        set_up = 4 + 2 + 1  # the field's matrices there and back, those of smoothing, a look at the grain
        assert len(gpu.waits) == recorded_heat <= batches + set_up
        assert len(pinned) >= batches and min(sorted(pinned)[-batches:]) > 50_000

    def test_the_lungs_come_back_once_a_batch(self, plain, chest_case, monkeypatch):
        from LesionDecompLib.segmentation.lungs import segment

        volume, _ = chest_case
        monkeypatch.setattr(segment, "LEAST_LUNG_ML", 0.0)
        monkeypatch.setattr(segment, "LEAST_SECTION_CM2", 0.0)
        replies = Replies()
        counts = []

        with replies.recorded(monkeypatch):
            expected, _ = plain._lungs(volume, None, lambda *step: counts.append(step), None)
        gpu = FakeGpu(replies)
        with cuda_of((8, 6), monkeypatch) as pinned:
            segmenter = on_gpu(plain, gpu, torch.bfloat16)
            with gpu:
                found, _ = segmenter._lungs(volume, None, None, None)
        np.testing.assert_array_equal(found, expected)
        batches = sum(1 for stage, _, _ in counts if stage == "lungs") - 1
        # There, and back for slices that hold lung; matrices of the field: 2 for the extent, 2 touched, 4 taken apart.
        assert len(gpu.waits) == len(replies.values) <= 2 * batches + 8
        assert len(pinned) >= batches

    def test_an_array_left_behind_is_noticed(self, plain, chest_case, monkeypatch):
        """A mutant: the blur's matrices stay on the processor."""
        volume, lungs = chest_case
        monkeypatch.setattr(smoothing, "_gaussian", lambda n, sigma, dtype, device: GAUSSIAN(n, sigma, dtype, "cpu"))
        replies = Replies()
        with replies.recorded(monkeypatch):
            plain.run(volume, lung_mask=lungs)
        gpu = FakeGpu(replies)
        with cuda_of((8, 0), monkeypatch):
            segmenter = on_gpu(plain, gpu, torch.bfloat16)
            with gpu, pytest.raises(RuntimeError, match="same device, but found at least two"):
                segmenter.run(volume, lung_mask=lungs)

    def test_a_wait_in_the_loop_is_noticed(self, plain, monkeypatch):
        """A mutant: heat is scaled inside the lungs alone, whose number of pixels the processor must know."""
        from LesionDecompLib.segmentation import heat

        def waiting(definition, value):
            return SCALED(definition, value[value > 0])

        monkeypatch.setattr(heat, "scaled_heat", waiting)
        gpu = FakeGpu()
        with cuda_of((8, 0), monkeypatch):
            segmenter = on_gpu(plain, gpu, torch.bfloat16)
            with gpu, pytest.raises(AssertionError, match="waits for a GPU"):
                heat.heat_of_slices(
                    replace(plain.lesion_bundle.heat_definition, smoothing_px=0.0),
                    segmenter._networks["lesions"].network,
                    torch.zeros((1, 1, 32, 32), device=CUDA),
                )


GAUSSIAN = smoothing._gaussian
from LesionDecompLib.segmentation.heat import scaled_heat as SCALED  # noqa: E402, N812


class TestTraining:
    @pytest.fixture
    def task_of(self, tmp_path):
        data = SliceSet.load(write_training_set(tmp_path / "set"), "train")
        config = load_config(PRESETS["default"], overrides=[*TINY, "self_training.weight=0"])

        def make(device: torch.device) -> LesionTask:
            return LesionTask(config, data, device)

        return make

    def test_slices_and_forward_pass_stay_on_the_gpu(self, task_of, monkeypatch):
        """Drawing, augmenting, painting, E, G1, G2 and the losses on cuda:0, in bfloat16."""
        replies = Replies()
        plain = task_of(torch.device("cpu"))
        with replies.recorded(monkeypatch):
            plain.step(4, np.random.default_rng(1))
        gpu = FakeGpu(replies)
        with cuda_of((8, 0), monkeypatch) as pinned, gpu, torch.no_grad():
            task = task_of(CUDA)
            assert all(p.device == CUDA for module in task.modules.values() for p in module.parameters())
            batch = task.batch(np.random.default_rng(1))
            parts = task.split(batch)
            assert {part.device for part in parts} == {batch.x.device} == {CUDA}
            terms = {}
            total = task._decomposition(batch, parts.g1, parts.g2, terms)
            total = total + task._image_level(batch, parts.gate, parts.heat, terms)
            total = (
                total + task._painted(batch, parts.g1, parts.gate, terms) + task.adversarial(4, batch, parts.g1, terms)
            )
            assert total.device == CUDA and {"L_r", "L_m", "L_a", "L_p_heat"} <= set(terms)
        assert len(gpu.waits) == 1 and pinned  # slices to be painted on

    def test_a_whole_step_stays_on_a_device_and_comes_back_twice(self, task_of, monkeypatch):
        found, expected, far, task = self._step_elsewhere(task_of, monkeypatch)
        assert found == expected and {"L_r", "L_m", "L_c", "L_a", "L_p_heat", "gradient_norm"} <= set(found)
        assert len(far.waits) == 2  # slices to be painted on, and the values for the log
        for module, optimizer in (("network", "network"), ("critic", "critic")):
            parameters = list(task.modules[module].parameters())
            assert all(p.is_meta and p.grad.is_meta for p in parameters if p.grad is not None)
            assert sum(p.grad is not None for p in parameters) > 0.9 * len(parameters)
            assert all(v.is_meta for s in task.optimizers[optimizer].state.values() for v in s.values() if v.ndim)

    def test_a_step_with_an_array_left_behind_is_noticed(self, task_of, monkeypatch):
        """A mutant: the numbers of the slices that are mixed stay on the processor."""
        monkeypatch.setattr(LesionTask, "_spread", lambda self, count, length: torch.arange(count) * length // count)
        with pytest.raises(RuntimeError, match="different devices"):
            self._step_elsewhere(task_of, monkeypatch)

    def test_a_step_that_waits_for_each_value_is_noticed(self, task_of, monkeypatch):
        """A mutant: each value of the log is fetched by itself."""
        monkeypatch.setattr(lesion_task, "as_numbers", lambda terms: {k: float(v.detach()) for k, v in terms.items()})
        with pytest.raises(AssertionError, match="waits for a GPU"):
            self._step_elsewhere(task_of, monkeypatch)

    @staticmethod
    def _step_elsewhere(task_of, monkeypatch):
        """A step on the meta device; its answers are those of the same step on the processor."""
        replies = Replies()
        with replies.recorded(monkeypatch):
            expected = task_of(torch.device("cpu")).step(4, np.random.default_rng(1))
        task, far = task_of(torch.device("meta")), FarDevice(replies)
        monkeypatch.setattr(lesion_task, "mixed_precision", lambda device: nullcontext())  # meta knows no autocast
        for optimizer in task.optimizers.values():  # nor a fused Adam
            optimizer.param_groups[0]["fused"] = False
        with far:
            found = task.step(4, np.random.default_rng(1))
        return found, expected, far, task

    def test_a_slice_s_score_without_waiting_is_the_same(self):
        generator = torch.Generator().manual_seed(3)
        gate = torch.randn((5, 1, 24, 32), generator=generator)
        lung = torch.rand(gate.shape, generator=generator) < torch.tensor([0.9, 0.5, 0.1, 0.002, 0.0]).view(5, 1, 1, 1)
        for fraction in (0.02, 0.3, 1.0):
            at_once = losses._slice_logits_at_once(gate.flatten(1), lung.flatten(1), fraction)
            torch.testing.assert_close(at_once, losses.slice_logits(gate, lung, fraction))


class TestPrecision:
    @pytest.mark.parametrize(
        ("capability", "kind"),
        [
            ((6, 1), torch.float32),
            ((7, 0), torch.float16),
            ((7, 5), torch.float16),
            ((8, 0), torch.bfloat16),
            ((8, 9), torch.bfloat16),
            ((9, 0), torch.bfloat16),
        ],
    )
    def test_sixteen_bits_follow_the_capability(self, monkeypatch, plain, capability, kind):
        with cuda_of(capability, monkeypatch):
            assert fast_precision(CUDA) == kind
            assert network_precision(plain.lung_bundle, CUDA) == kind
            assert network_precision(plain.lung_bundle, CUDA, "float32") == torch.float32
            assert network_precision(plain.lesion_bundle, CUDA) == torch.float32  # never measured
            training = precision.mixed_precision(CUDA)  # float16 would need a scale of the loss
            assert training._enabled == (kind == torch.bfloat16)

    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
    def test_convolutions_are_computed_in_it(self, monkeypatch, kind):
        gpu = FakeGpu()
        with cuda_of((8, 0), monkeypatch):
            network = gpu.placed(UNet(1, 3, 4, 2).eval())
            with gpu, torch.inference_mode(), computing_in(kind, CUDA):
                assert network(torch.zeros((1, 1, 32, 32), device=CUDA)).dtype == kind

    def test_apple_gpus_compute_in_float32_and_get_no_float64(self, monkeypatch, chest_case, plain):
        assert fast_precision(torch.device("mps")) == torch.float32
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        from LesionDecompLib.models.device import choose_device

        assert choose_device("auto")[0] == choose_device("mps")[0] == torch.device("mps")
        # What goes to a device: the same arrays for each kind of it.
        kinds = set()
        to = torch.Tensor.to

        def seen(tensor, *args, **kwargs):
            if args and isinstance(args[0], torch.device):
                kinds.add(tensor.dtype)
            return to(tensor, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, "to", seen)
        volume, lungs = chest_case
        plain.run(volume, lung_mask=lungs)
        assert torch.float32 in kinds and torch.float64 not in kinds

    def test_copies_to_a_gpu_are_pinned_and_others_are_not(self, monkeypatch):
        with cuda_of((8, 0), monkeypatch) as pinned:
            assert on_device(torch.ones(3), torch.device("cpu")) is not None and not pinned
            with FakeGpu() as gpu:
                moved = on_device(torch.ones(3), CUDA)
                assert moved.device == CUDA and on_device(moved, CUDA) is moved
            assert pinned == [12] and gpu.copies == [12]


MEASURED = f"""
import sys
sys.path.insert(0, {str(MODULE)!r})
import torch
from LesionDecompLib.models.networks import UNet
from LesionDecompLib.models.precision import computing_in
from LesionDecompLib.report.memory import high_water_mark_mib
from LesionDecompLib.threads import return_freed_memory

torch.set_num_threads(1)
network = UNet(1, 3, 16, 4).eval().requires_grad_(False).to(memory_format=torch.channels_last)
x = torch.zeros({{shape}}).contiguous(memory_format=torch.channels_last)
with torch.inference_mode(), computing_in({{kind}}, "cpu"):
    network(x[:, :, :32, :32])
    return_freed_memory()
    with open("/proc/self/status") as stream:
        before = next(1024 * int(line.split()[1]) for line in stream if line.startswith("VmRSS:"))
    with open("/proc/self/clear_refs", "w") as stream:
        stream.write("5")  # the high-water mark begins anew
    network(x)
print(high_water_mark_mib() * 2**20 - before)
"""


class TestMemory:
    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
    @pytest.mark.slow
    def test_what_a_batch_takes_is_known_from_its_shapes(self, kind):
        if high_water_mark_mib() is None:
            pytest.skip("needs Linux")
        network = UNet(1, 3, 16, 4).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        shape = (6, 1, 192, 192)
        expected = batch_bytes(network, shape, kind)
        assert batch_bytes(network, (12, 1, 192, 192), kind) == pytest.approx(2 * expected, rel=0.05)
        # A process of its own: what others allocated before must not serve the batch, nor count. Each array is mapped
        # by itself there: how glibc's heap fills its holes is not the batch's doing.
        program = MEASURED.format(shape=shape, kind=str(kind))
        alone = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=alone)
        assert expected > 40e6
        assert 0.8 * expected < float(run.stdout) < 1.25 * expected

    def test_weights_count_too(self):
        assert weight_bytes(torch.nn.Conv2d(2, 3, 5)) == 4 * (2 * 3 * 25 + 3)

    def test_too_little_memory_halves_the_batch_once_with_a_warning(self, plain, chest_case, monkeypatch):
        volume, lungs = chest_case
        asked = []

        def short(*arguments, **keywords):
            asked.append(arguments[6])
            if arguments[6] > 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return HEAT(*arguments, **keywords)

        monkeypatch.setattr("LesionDecompLib.segmentation.heat.lesion_heat", short)
        result = plain.run(volume, lung_mask=lungs)
        (warning,) = [text for text in result.warnings if getattr(text, "code", "") == "batch_halved"]
        assert asked == [8, 4] and (warning.value, warning.limit) == (4, 8)
        assert "8 slices at a time: 4" in warning
        again = plain.run(volume, lung_mask=lungs)  # what has been learned stays
        assert asked == [8, 4, 4] and not [t for t in again.warnings if getattr(t, "code", "") == "batch_halved"]

    def test_a_second_time_it_is_an_error(self, plain, chest_case, monkeypatch):
        volume, lungs = chest_case
        asked = []

        def short(*arguments, **_):
            asked.append(arguments[6])
            raise RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)")

        monkeypatch.setattr("LesionDecompLib.segmentation.heat.lesion_heat", short)
        with pytest.raises(Exception, match="too little memory for 64×64×61 voxels") as caught:
            plain.run(volume, lung_mask=lungs)
        assert asked == [8, 4] and caught.value.code == "out_of_memory"

    def test_other_errors_are_no_shortage(self):
        assert is_out_of_memory(MemoryError())
        assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"))
        assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))


from LesionDecompLib.segmentation.heat import lesion_heat as HEAT  # noqa: E402, N812


def test_matrices_are_taken_apart_on_the_processor(monkeypatch):
    matrix = torch.eye(40)
    with cuda_of((8, 0), monkeypatch):
        replies = Replies()
        replies.values = [matrix]
        with FakeGpu(replies) as gpu:
            banded = resampling.BandedMatrix.of(matrix.to(CUDA))
            assert len(banded.blocks) == 3 and all(block.device == CUDA for _, _, block in banded.blocks)
            assert banded.times(torch.zeros((1, 40, 2), device=CUDA)).shape == (1, 40, 2)
        assert len(gpu.waits) == 1
