"""Trains the model within a wall-clock budget: `python -m moedge_panel.train --budget-minutes 79 --out DIR`.

The vision tower is told directly what lies in every patch (dropped afterwards) and learns alone for the first part;
then each image is encoded once for several questions. The learning rate reaches zero exactly at the end of the budget.
"""

import argparse
import csv
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen3VLMoeForConditionalGeneration

from moedge_panel.batch import NO_TARGET, Batch, BatchBuilder
from moedge_panel.dataset import IGNORED, LABEL_CLASSES, LABEL_NAMES, Chunk, ChunkSource, render_chunk
from moedge_panel.model_config import TEXT_HIDDEN, build_config, build_model
from moedge_panel.network import VisionFeatures, VisionPath, text_logits
from moedge_panel.optimizer import MuonAdamW
from moedge_panel.save import save_checkpoint
from moedge_panel.tokenizer import build_tokenizer

_STREAMS = ((0, 1), (2,), (3,))
"""Label kinds that the merged tokens and the two DeepStack taps carry: digits and places, lamps, gauge. Where a stream
has nothing to say it is pulled to a constant, so the decoder cannot do without any of the three."""

_SILENT_VALUES = (0.5, 0.0, 0.0)
"""The constants. Tokens do not fall silent at 0, because the decoder's first norm would blow up what is left."""

_SILENCE_WEIGHT = 2.0


@dataclass(frozen=True)
class Settings:
    """Settings of a run; times in seconds."""

    seed: int
    budget_s: float
    vision_share: float
    per_image: int
    muon_rate: float
    adam_rate: float
    decay: float
    ramp_chunks: int
    workers: int
    train_core: int | None
    worker_core: int | None
    ema_s: float
    out: Path
    start: Path | None


class PatchHeads(nn.Module):
    """Linear heads that name what lies in each of a token's four patches, one per vision output."""

    def __init__(self) -> None:
        super().__init__()
        classes = [sum(LABEL_CLASSES[kind] for kind in kinds) for kinds in _STREAMS]
        self.heads = nn.ModuleList(nn.Linear(TEXT_HIDDEN, 4 * count) for count in classes)

    def forward(self, features: VisionFeatures, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and the share of patches named rightly per label kind (only patches with something in them)."""
        loss, right = torch.zeros(()), torch.zeros(len(LABEL_CLASSES))
        streams = (features.tokens, *features.deepstack)
        for head, x, kinds, silent_value in zip(self.heads, streams, _STREAMS, _SILENT_VALUES, strict=True):
            logits = head(x).float().view(*x.shape[:2], 4, -1)
            for kind, part in zip(kinds, torch.split(logits, [LABEL_CLASSES[k] for k in kinds], dim=-1), strict=True):
                target = labels[..., kind].long()
                each = F.cross_entropy(part.flatten(0, 2), target.flatten(), reduction="none", ignore_index=IGNORED)
                busy = ((target > 0) & (target != IGNORED)).flatten().float()
                empty = (target == 0).flatten().float()
                # Most patches are empty: mean over the busy ones plus mean over the empty ones.
                loss = loss + (each * busy).sum() / busy.sum() + (each * empty).sum() / empty.sum()
                right[kind] = ((part.argmax(-1) == target).flatten().float() * busy).sum().detach() / busy.sum()
            silent = (labels[..., list(kinds)] == 0).flatten(2).all(-1).float()
            distance = (x.float() - silent_value).pow(2).mean(-1)
            loss = loss + _SILENCE_WEIGHT * (distance * silent).sum() / silent.sum()
        return loss, right


def answers_right(logits: Tensor, batch: Batch) -> float:
    """Share of sequences whose answer tokens are all the most likely ones (teacher forced, so equal to greedy)."""
    wrong = ((logits.argmax(-1) != batch.targets) & (batch.targets != NO_TARGET)).float()
    bad = torch.zeros(batch.image_of.shape[0]).index_add_(0, batch.sequence_of, wrong)
    return float((bad == 0).float().mean())


class Trainer:
    """One run; see the module's first lines."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        torch.manual_seed(settings.seed)
        self.tokenizer: Tokenizer = build_tokenizer()
        self.model: Qwen3VLMoeForConditionalGeneration = build_model(build_config(self.tokenizer))
        if settings.start:
            models: Any = Qwen3VLMoeForConditionalGeneration
            self.model = models.from_pretrained(settings.start, dtype=torch.float32).train()
        self.vision = VisionPath(self.model)
        self.heads = PatchHeads()
        named = [*self.model.named_parameters(), *((f"heads.{n}", p) for n, p in self.heads.named_parameters())]
        self.parameters = [p for _, p in named]
        self.optimizer = MuonAdamW(named, settings.muon_rate, settings.adam_rate, settings.decay)
        self.batches = BatchBuilder(self.tokenizer, settings.seed)
        self.average = [p.detach().clone() for p in self.model.parameters()]
        self.checks = [render_chunk(settings.seed + 1_000_000, i, 0.0) for i in range(12)]
        self.check_batches = [
            BatchBuilder(self.tokenizer, settings.seed + i).build(c.states, self._grid(c), 3)
            for i, c in enumerate(self.checks)
        ]

    @staticmethod
    def _grid(chunk: Chunk) -> tuple[int, int]:
        return chunk.images.shape[1] // 32, chunk.images.shape[2] // 32

    def loss(self, chunk: Chunk, with_text: bool) -> tuple[Tensor, dict[str, float]]:
        """Loss of one chunk and its parts."""
        with torch.autocast("cpu", torch.bfloat16):
            features = self.vision(torch.from_numpy(chunk.images))
            dense, right = self.heads(features, torch.from_numpy(chunk.labels))
            parts = {"dense": float(dense.detach())} | dict(zip(LABEL_NAMES, right.tolist(), strict=True))
            if not with_text:
                return dense, parts
            batch = self.batches.build(chunk.states, self._grid(chunk), self.settings.per_image)
            logits, balance = text_logits(
                self.model, batch.ids, batch.positions, batch.groups, batch.wanted, features, batch.image_of
            )
            answer = F.cross_entropy(logits, batch.targets)
        parts |= {"answer": float(answer.detach()), "balance": float(balance.detach())}
        parts["train_exact"] = answers_right(logits.detach(), batch)
        return answer + 0.25 * dense + 0.01 * balance, parts

    @torch.no_grad()
    def check(self) -> tuple[float, float]:
        """Exact answers and digits right on unseen pictures (training typefaces), with the averaged weights, fp32."""
        self._swap()
        right, digits = [], []
        for chunk, batch in zip(self.checks, self.check_batches, strict=True):
            features = self.vision(torch.from_numpy(chunk.images))
            digits.append(float(self.heads(features, torch.from_numpy(chunk.labels))[1][0]))
            logits, _ = text_logits(
                self.model, batch.ids, batch.positions, batch.groups, batch.wanted, features, batch.image_of
            )
            right.append(answers_right(logits, batch))
        self._swap()
        return sum(right) / len(right), sum(digits) / len(digits)

    def _swap(self) -> None:
        for parameter, kept in zip(self.model.parameters(), self.average, strict=True):
            live = parameter.data.clone()
            parameter.data.copy_(kept)
            kept.copy_(live)

    def run(self) -> None:
        """Trains until the budget ends, then saves the averaged weights to `out`/checkpoint."""
        s = self.settings
        s.out.mkdir(parents=True, exist_ok=True)
        source = ChunkSource(s.seed, s.workers, s.ramp_chunks, s.worker_core)
        started = last = time.monotonic()
        step, next_check, next_save, sums = 0, 120.0, 600.0, dict[str, list[float]]()
        with (s.out / "log.csv").open("w", newline="") as file:
            log = csv.writer(file)
            columns = ["dense", *LABEL_NAMES, "answer", "balance", "train_exact"]
            log.writerow(
                ["seconds", "step", "fresh_images", "repeated_images", *columns, "check_exact", "check_digits"]
            )
            while (elapsed := time.monotonic() - started) < s.budget_s:
                progress = elapsed / s.budget_s
                loss, parts = self.loss(source.next(), progress > s.vision_share)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.parameters, 5.0)
                warm = min(1.0, (step + 1) / 100)
                self.optimizer.step(warm * min(1.0, (1 - progress) / 0.6))
                step += 1
                now = time.monotonic()
                keep = 0.5 ** ((now - last) / max(1e-3, min(s.ema_s, 0.1 * elapsed)))
                last = now
                torch._foreach_lerp_(self.average, [p.detach() for p in self.model.parameters()], 1 - keep)
                for key, value in parts.items():
                    sums.setdefault(key, []).append(value)
                if step % 50 == 0:
                    means = [f"{sum(sums[c]) / len(sums[c]):.4f}" if c in sums else "" for c in columns]
                    sums.clear()
                    checked = ["", ""]
                    if now - started > next_check:
                        checked = [f"{value:.4f}" for value in self.check()]
                        next_check += 120
                    counts = [source.fresh * 32, source.repeated * 32]
                    log.writerow([f"{now - started:.0f}", step, *counts, *means, *checked])
                    file.flush()
                    print(f"{now - started:.0f}s step {step}", *counts, *means, *checked, flush=True)
                    if now - started > next_save:
                        self.save(s.out / "checkpoint-partial")
                        next_save += 600
        source.close()
        print("final", *self.check(), flush=True)
        self.save(s.out / "checkpoint")

    def save(self, folder: Path) -> None:
        """Writes the averaged weights in the Hugging Face layout."""
        self._swap()
        save_checkpoint(self.model, self.tokenizer, folder)
        self._swap()


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget-minutes", type=float, default=75.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vision-share", type=float, default=0.12, help="first part of the budget without text")
    parser.add_argument("--per-image", type=int, default=3, help="questions per image")
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--ramp-chunks", type=int, default=1200, help="chunks from easy pictures to the full range")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--train-core", type=int)
    parser.add_argument("--worker-core", type=int)
    parser.add_argument("--ema-seconds", type=float, default=60.0)
    parser.add_argument("--start", type=Path, help="checkpoint to go on from")
    a = parser.parse_args(arguments)
    return Settings(
        a.seed, a.budget_minutes * 60, a.vision_share, a.per_image, a.muon_rate, a.adam_rate, a.decay,
        a.ramp_chunks, a.workers, a.train_core, a.worker_core, a.ema_seconds, a.out, a.start,
    )  # fmt: skip


def main() -> None:
    """Entry point."""
    settings = parse()
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
    torch.set_num_threads(1)  # more threads lose to any other load on the machine
    if settings.train_core is not None:
        os.sched_setaffinity(0, {settings.train_core})
    Trainer(settings).run()


if __name__ == "__main__":
    main()
