"""The training loop, and the report at its end.

It trains anything that gives (inputs, label, index) and is scored by its logits. A run is a
function of (configuration, seed): sample order, augmentation and dropout are keyed by the
position in the run, never by what came before, so that there is no generator to save.
"""

import contextlib
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from .buffers import RunningStatistics
from .card import Card, read_card
from .checkpoint import WeightFiles, apply_weights, load_weights
from .components import Components, make_average, make_loss, make_optimizer, used
from .config import Config
from .distributed import World
from .errors import RunFailed, Stopped, UserError, printable
from .evaluation import Evaluation, Evaluator, Logits, SplitScorer, logits_of
from .files import atomic_write, reason
from .loading import Batch, BatchPlan, Dataset, Loader, TrainBatches, identity_of, plan_batches
from .log import Curves, Point, start_logging
from .numerics import precision_notes, precision_of
from .progress import Position, Tally
from .publish import TEST_STEM, Publisher
from .schedule import learning_rates
from .signals import Request, Signals
from .watch import AGAIN
from .workdir import Begun, WorkDir

BEST = "best.pt"


class Trainer:
    """Everything a run needs, composed; ``fit`` and ``test`` are the two phases."""

    def __init__(
        self,
        config: Config,
        world: World,
        model: nn.Module,
        test_set: Dataset,
        *,
        config_file: str = "config.yaml",
        train_set: Dataset | None = None,
        val_set: Dataset | None = None,
        evaluator: Evaluator | None = None,
        components: Components | None = None,
        start: Callable[[], object] = lambda: None,
        card: Card,
    ) -> None:
        """Check what can be checked, then open the work dir; nothing is written before that.

        Args:
            model: on the CPU, with its initial weights.
            start: puts start weights into the model; not called where a run is resumed, whose state
                has all it needs.
            val_set: held-out part of the training split; where given, it chooses the best epoch.
            components: what it trains with; a test needs none.
            card: what the weights are that the run trains, or tests.

        Raises:
            UserError: the batch does not fit the split or the processes; see WorkDir.open.
        """
        self.world, self.folder = world, Path(config.work_dir)
        self.model = model
        self.train_set, self.test_set, self.val_set = train_set, test_set, val_set
        self.position = Position(epoch=config.start_epoch)
        self._evaluator = evaluator or Logits()
        if components is not None:
            self._set_components(config, components)
        self._card = card
        self._work_dir, self._weights = WorkDir(self.folder), WeightFiles(self.folder)
        new = not world.main_decides(lambda: self._work_dir.may_hold(config))
        if new:
            self.plan = self._plan(config, world.size)
            start()
        begun = world.main_decides(lambda: self._open(config, config_file))
        if begun is None and not new:
            start()
        self._resume = begun is not None
        self._began_on = begun.world if begun else world.size
        self.config = config = config.with_epochs(begun.epochs) if begun else config
        self.plan = self._plan(config, self._began_on)
        self.model.to(world.device)
        self.log = start_logging(
            world.is_main, self.folder / "log.txt" if config.print_log else None
        )
        for note in (*config.notes, *self._work_dir.notes):
            self.log.info(f"note: {note}")
        self._publisher = Publisher(config, self.folder, self.log, test_set)

    def _set_components(self, config: Config, components: Components) -> None:
        """Make what may not fit the model or the data, before anything is written."""
        assert self.train_set is not None
        labels = np.asarray(self.train_set.labels)
        num_class = getattr(self.model, "num_class", None) or int(labels.max()) + 1
        self._components = components
        self._criterion = make_loss(config, components.loss, labels, num_class)
        self._criterion.to(self.world.device)
        make_optimizer(config, components.optimizer, self._trained)

    def _plan(self, config: Config, began_on: int) -> BatchPlan:
        """The steps of a run that began on ``began_on`` processes, dealt out to those there are.

        Raises:
            UserError: they do not come out even, or take more samples than there are.
        """
        plan = plan_batches(config.batch_size, config.global_batch_size, began_on)
        if self.train_set is not None and len(self.train_set) < plan.step_size:
            share = len(self.train_set) // began_on
            fits = began_on * (share - share % min(config.batch_size, share or 1))
            raise UserError(
                f"a step takes {plan.step_size} samples, but the train split has only "
                f"{len(self.train_set)}; "
                + (f"say --global-batch-size {fits}" if fits else "use fewer processes")
            )
        return replace(plan, world=self.world.size)

    def _open(self, config: Config, config_file: str) -> Begun | None:
        data = None if self.train_set is None else identity_of(self.train_set)
        return self._work_dir.open(config, config_file, data, self.world.size)

    # -- the two phases ---------------------------------------------------------------------

    def fit(self) -> None:
        """Train to the last epoch, from a saved state where there is one, and report."""
        config = self.config
        with contextlib.closing(self._work_dir):
            self._prepare_training()
            with Signals() as self._signals:
                for epoch in range(self.position.epoch, config.num_epoch):
                    started = time.monotonic()
                    self._train_epoch(epoch)
                    due = (epoch + 1) % config.eval_interval == 0 or epoch + 1 == config.num_epoch
                    if due:
                        self._validate(epoch)
                    self._end_epoch(epoch, started)
                self._report()

    def test(self) -> None:
        """Score the test split with the model as it is, and write the reports."""
        with contextlib.closing(self._work_dir):
            self._note_precision()
            evaluation = self._scorer(self.test_set)(self.model, "test")
            made, title = self._card.training, f"test of {self.config.weights}"
            if made.keys() >= {"epoch", "global_step"}:
                title += " " + printable(f"(epoch {made['epoch']}, step {made['global_step']})")
            self._publish(evaluation, TEST_STEM, title, scores=True)

    # -- set-up -----------------------------------------------------------------------------

    def _prepare_training(self) -> None:
        config, world = self.config, self.world
        assert self.train_set is not None
        self._batches = TrainBatches(len(self.train_set), self.plan, world.rank, config.seed)
        pin = world.device.type == "cuda"
        self._loader = Loader(
            self.train_set, self._batches, workers=config.num_worker, pin_memory=pin
        )
        self._test_scorer = self._scorer(self.test_set)
        self._val_scorer = self._scorer(self.val_set) if self.val_set else self._test_scorer
        self._optimizer = make_optimizer(config, self._components.optimizer, self._trained)
        self._average = make_average(config, self._components.averaging, self.model)
        self._rates = learning_rates(config.model_dump(), config.num_epoch)
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=config.amp == "fp16")
        self._tally = Tally(world.device)
        self._tallies: list[list[float]] = []
        self._statistics = RunningStatistics(
            self.model, self.plan, world, can_undo=config.on_nonfinite == "skip"
        )
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=world.device)
        points = self._restore() if self._resume else []
        self._curves = Curves(
            self.folder / "runs", world.is_main, self.position.global_step, points
        )
        if not self._resume:
            world.main_decides(self._save_first_state)
        if config.compile:
            self.model.compile()
        self._parallel = self._wrap()
        self._last_save = time.monotonic()
        self._waited = 0.0
        self._announce()

    def _wrap(self) -> nn.Module:
        if self.world.size == 1:
            return self.model
        devices = [self.world.device] if self.world.device.type == "cuda" else None
        # Weights with dimensions of one have several equivalent strides; what is copied is small.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        # Buffers are averaged by RunningStatistics, so rank 0's are not sent round.
        with self.world.meeting():
            parallel = DistributedDataParallel(
                self.model,
                device_ids=devices,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
            )
            parallel.register_comm_hook(None, _add_up)
            if self.world.size > 2:
                self._warm_up(parallel)
        return parallel

    def _warm_up(self, parallel: nn.Module) -> None:
        """Take a pass that leaves nothing behind, in new and in resumed runs alike.

        After its first pass DistributedDataParallel regroups the gradients, and on three or more
        ranks the order in which they are added up depends on the groups.
        """
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        inputs, labels, _ = self._loader.first(self.plan.micro)
        parallel.train()
        with precision_of(self.config, self.world.device):
            logits = logits_of(parallel(inputs.to(self.world.device)))
        self._criterion(logits.float(), labels.to(self.world.device)).backward()
        self.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)

    @property
    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """The model holds what is scored and saved within: its average, where there is one.

        Within that, again, its own weights.
        """
        return self._average.exchanged() if self._average else contextlib.nullcontext()

    def _scorer(self, dataset: Dataset) -> SplitScorer:
        return SplitScorer(
            dataset,
            batch_size=self.config.test_batch_size,
            workers=self.config.num_worker,
            world=self.world,
            evaluator=self._evaluator,
            precision=lambda: precision_of(self.config, self.world.device),
        )

    def _announce(self) -> None:
        config, world, plan = self.config, self.world, self.plan
        assert self.train_set is not None
        sizes = [p.numel() for p in self._trained]
        self.log.info(
            f"python {platform.python_version()}, torch {torch.__version__}, "
            f"numpy {np.__version__}; {world.size} x {world.device.type}, "
            f"{torch.get_num_threads()} threads each; amp {config.amp}; seed {config.seed}"
        )
        self.log.info(
            f"{sum(sizes):,} trained parameters; {len(self.train_set)} training samples; a step is "
            f"{plan.step_size} = {plan.count} x {plan.micro}"
            + (f", over {world.size} processes" if world.size > 1 else "")
        )
        for line in used(config):
            self.log.info(line)
        if plan.micro < config.batch_size:
            self.log.info(
                f"note: batch norm sees {plan.micro} samples at a time instead of batch_size "
                f"{config.batch_size}, as a step is spread over {self._began_on} processes"
            )
        if plan.count % world.size:
            self.log.info(
                f"note: the run began on {self._began_on} processes, and {world.size} cannot share "
                f"out a step's {plan.count} batches evenly: some wait for others"
            )
        self._note_precision()

    def _note_precision(self) -> None:
        for note in precision_notes(self.config, self.world.device) if self.world.is_main else []:
            self.log.info(note)

    # -- one epoch --------------------------------------------------------------------------

    def _train_epoch(self, epoch: int) -> None:
        """Steps from where the position stands to the end of ``epoch``."""
        position = self.position
        rate = self._set_rate(epoch)
        self._waited, steps = 0.0, self._batches.steps
        first, started = position.step, time.monotonic()
        self._parallel.train()
        batches = self._loader.epoch(epoch, position.step)
        quiet = None if self.world.is_main else True
        for step in tqdm(
            range(position.step, steps),
            f"epoch {epoch + 1}/{self.config.num_epoch}",
            initial=position.step,
            total=steps,
            disable=quiet,
            leave=False,
        ):
            self._step(batches, step)
            position.step, position.global_step = step + 1, position.global_step + 1
            if position.global_step % self.config.log_interval == 0:
                self._require_finite()
                self._curves.add("train", {"loss_step": float(self._loss)}, position.global_step)
            self._handle_requests()
        self._require_finite()
        samples = (steps - first) * self.plan.step_size
        self._speed = samples / max(time.monotonic() - started, 1e-9)
        self._tallies = self.world.gather(self._tally.sums.tolist())
        means = self._tally.means(self.world)
        self._epoch_line = {"epoch": epoch + 1, "learning_rate": rate, **means}

    def _set_rate(self, epoch: int) -> float:
        rate = self._rates[epoch]
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _step(self, batches: Iterator[Batch], step: int) -> None:
        """One update: forward and backward of this rank's micro-batches, then the optimiser."""
        plan, last = self.plan, self.plan.accumulate - 1
        tally = Tally(self.world.device)
        for micro in range(plan.accumulate):
            inputs, labels = self._next(batches)
            number = plan.number(micro, self.world.rank)
            counts = number < plan.count  # an idle turn only keeps the others company
            self._seed_dropout(number)
            self._statistics.before(micro)
            with self._gradients_kept_local() if micro < last else contextlib.nullcontext():
                with precision_of(self.config, self.world.device):
                    logits = logits_of(self._parallel(inputs))
                loss = self._criterion(logits.float(), labels)
                with self.world.meeting():
                    self._scaler.scale(counts * loss / plan.count).backward()
            self._statistics.after(micro, counts=counts)
            if counts:
                tally.add(loss.detach(), logits.detach(), labels)
            self._note_nonfinite(loss.detach(), step)
        self._loss = loss.detach()
        if self._checks_each_step and self._drop_step():
            self._optimizer.zero_grad(set_to_none=True)
            self._statistics.undo()
            return
        self._tally.sums += tally.sums
        if self.config.clip_grad_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._trained, self.config.clip_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average:
            self._average.update(self.position.epoch)

    def _next(self, batches: Iterator[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        started = time.monotonic()
        inputs, labels, _ = next(batches)
        self._waited += time.monotonic() - started
        device = self.world.device
        return inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    def _gradients_kept_local(self) -> Any:
        """Gradients travel once a step: with the last micro-batch."""
        if isinstance(self._parallel, DistributedDataParallel):
            return self._parallel.no_sync()
        return contextlib.nullcontext()

    def _seed_dropout(self, number: int) -> None:
        """Key the generator by (seed, step, micro-batch), whoever computes it."""
        key = np.random.SeedSequence([self.config.seed, self.position.global_step, number])
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0]))

    # -- losses that are not finite -----------------------------------------------------------

    @property
    def _checks_each_step(self) -> bool:
        """On CUDA, looking at the loss waits for the device: only where it must be."""
        return self.world.device.type == "cpu" or self.config.on_nonfinite == "skip"

    def _note_nonfinite(self, loss: torch.Tensor, step: int) -> None:
        seen = torch.isfinite(loss) | (self._first_bad >= 0)
        self._first_bad = torch.where(seen, self._first_bad, step)

    def _drop_step(self) -> bool:
        """Whether this step is to be skipped; its tally goes with it.

        Raises:
            RunFailed: the loss is not finite, and that stops the run.
        """
        if not self.world.any(bool(self._first_bad >= 0)):
            return False
        if self.config.on_nonfinite == "stop":
            self._require_finite()
        self._describe_nonfinite()
        self.position.skipped += 1
        self._first_bad.fill_(-1)
        return True

    def _require_finite(self) -> None:
        """Stop the run if a loss was not finite since the last look.

        Raises:
            RunFailed: it was.
        """
        if self.world.any(bool(self._first_bad >= 0)):
            where = self._describe_nonfinite()
            raise RunFailed(
                f"the loss is not finite ({where}); the last good state is kept in {self.folder}; "
                f"resume with --on-nonfinite skip, or start over with a lower --base-lr and "
                f"--work-dir OTHER"
            )

    def _require_finite_weights(self) -> None:
        """A gradient can overflow under a finite loss: such weights must not replace good ones."""
        floats = (v for v in self.model.state_dict().values() if v.is_floating_point())
        if not all(bool(v.isfinite().all()) for v in floats):
            raise RunFailed(
                f"the weights are not finite after step {self.position.global_step}; the last good "
                f"state is kept in {self.folder}; start over with a lower --base-lr and "
                f"--work-dir OTHER"
            )

    def _describe_nonfinite(self) -> str:
        """Write down the step, its samples and the rate; return the first line of it."""
        assert self.train_set is not None
        step = self.world.largest(int(self._first_bad))
        epoch, rate = self.position.epoch, self._optimizer.param_groups[0]["lr"]
        names = self.train_set.sample_names
        samples = [names[i % len(names)] for i in self._batches.step_indices(epoch, step)]
        where = f"epoch {epoch + 1}, step {step + 1}, learning rate {rate:g}"
        self.log.info(f"loss not finite: {where}; samples: {' '.join(samples)}")
        if self.world.is_main:
            file = self.folder / f"nonfinite_epoch{epoch + 1}_step{step + 1}.txt"
            with self._going_on(file.name), atomic_write(file) as temporary:
                temporary.write_text("\n".join([where, *samples]) + "\n", encoding="utf-8")
        return where

    # -- the end of an epoch ------------------------------------------------------------------

    @property
    def _chooser(self) -> str:
        """The split that chooses the best epoch: held out, or the test split itself."""
        return "val" if self.val_set else "test"

    def _validate(self, epoch: int) -> None:
        """Score the split that chooses, and keep the weights where they are the best so far."""
        with self._averaged():
            evaluation = self._val_scorer(
                self.model, self._chooser, self._handle_requests_in_evaluation
            )
        found = None if evaluation is None else (evaluation.accuracy, evaluation.loss)
        accuracy, loss = self.world.broadcast(found) or (0.0, 0.0)
        self._epoch_line |= {"val_loss": loss, "val_accuracy": accuracy}
        if accuracy > self.position.best_accuracy:
            self.position.best_accuracy, self.position.best_epoch = accuracy, epoch + 1
            self._save_weights(BEST)

    def _end_epoch(self, epoch: int, started: float) -> None:
        """Log the epoch, move the position on, save the weights (if due) and the state."""
        config, position, line = self.config, self.position, self._epoch_line
        position.history.append(line)
        seconds = time.monotonic() - started
        left = seconds * (config.num_epoch - epoch - 1)
        scored = ""
        if "val_loss" in line:
            best = " (best so far)" if position.best_epoch == epoch + 1 else ""
            scored = (
                f", {self._chooser} loss {line['val_loss']:.4f} "
                f"accuracy {100 * line['val_accuracy']:.2f} %{best}"
            )
        self.log.info(
            f"epoch {epoch + 1}/{config.num_epoch}: rate {line['learning_rate']:g}, "
            f"loss {line['loss']:.4f} accuracy {100 * line['accuracy']:.2f} %{scored}; "
            f"{seconds:.1f} s, {self._speed:.0f} samples/s in training, "
            f"{100 * self._waited / max(seconds, 1e-9):.0f} % waiting for data, "
            f"{_duration(left)} left"
        )
        last = epoch + 1 == config.num_epoch
        wanted = epoch + 1 > config.save_epoch and (epoch + 1) % config.save_interval == 0
        if last or wanted:
            self._save_weights(self._weights_name(epoch + 1))
        self._draw(line)
        position.epoch, position.step = epoch + 1, 0
        self._tally = Tally(self.world.device)
        self._tallies = []
        self._save_state()

    def _draw(self, line: dict[str, float]) -> None:
        """Add an epoch's points to the curves: only now, so that no resumed run adds them again."""
        step = self.position.global_step
        names = ("loss", "accuracy", "learning_rate")
        self._curves.add("train", {name: line[name] for name in names}, step)
        if "val_loss" in line:
            val = {name: line[f"val_{name}"] for name in names[:2]}
            self._curves.add("val", val, step)

    # -- states and signals -------------------------------------------------------------------

    def _handle_requests(self) -> None:
        """Do what signals and the clock ask for, on all ranks after the same step."""
        if self.world.device.type == "cuda" and self.position.step % 10:
            return
        overdue = time.monotonic() - self._last_save > 60 * self.config.save_minutes
        request = max(self._signals.take(), Request.SAVE if overdue else Request.NONE)
        decided = Request(self.world.largest(request))
        if decided is Request.NONE:
            return
        self._require_finite()
        self._tallies = self.world.gather(self._tally.sums.tolist())
        self._save_state()
        if decided.leaves:
            self._leave(decided)

    def _handle_requests_in_evaluation(self) -> None:
        """As ``_handle_requests``; a resumed run starts the evaluation again."""
        decided = Request(self.world.largest(self._signals.take()))
        if decided is not Request.NONE:
            with self._averaged():  # which it is within already
                self._save_state()
        if decided.leaves:
            self._leave(decided)

    def _handle_requests_in_report(self) -> None:
        """The state is saved by now, and the model may hold the best weights instead of its own."""
        decided = Request(self.world.largest(self._signals.take()))
        if decided.leaves:
            self._leave(decided)

    def _leave(self, request: Request) -> None:
        position = self.position
        told = (
            f"stopped on request after step {position.step} of epoch {position.epoch + 1}; "
            f"{AGAIN} from there"
        )
        self.log.info(told)
        raise Stopped(request.status, told)

    @contextlib.contextmanager
    def _going_on(self, what: str) -> Iterator[None]:
        """A full disk is said, and the run goes on: ``what`` is tried again when it is next due."""
        try:
            yield
        except OSError as error:
            self.log.info(
                f"warning: {what} not written ({reason(error)}); training continues, and the last "
                f"state that was saved is intact"
            )

    def _save_weights(self, name: str) -> None:
        if self.world.is_main:
            with self._going_on(name), self._averaged():
                card = self._card_after(self.position.epoch + 1, self._epoch_line)
                self._weights.save(name, self.model.state_dict(), card)

    def _card_after(self, epoch: int, line: dict[str, float]) -> Card:
        """The card of the weights as they are now; ``line`` tells of the epoch before."""
        return self._card.trained(
            epoch=epoch,
            global_step=self.position.global_step,
            accuracy=line.get("val_accuracy"),
            accuracy_on=self._chooser,
        )

    def _scored_card(self) -> Card:
        """The card of the weights whose scores are kept: the tested ones, or a run's best."""
        return self._card if self.config.phase == "test" else read_card(self.folder / BEST)[0]

    def _weights_name(self, epoch: int) -> str:
        return f"runs-{epoch}-{self.position.global_step}.pt"

    def _save_first_state(self) -> None:
        """So that whatever lies in the folder from here on belongs to a run that can go on."""
        try:
            self._write_state()
        except OSError as error:
            raise UserError(f"{self.folder}: no state can be saved ({reason(error)})") from error

    def _save_state(self) -> None:
        """Write the full state (rank 0), after all that it takes for granted.

        Raises:
            RunFailed: the weights are not finite; the state before stays (on every rank).
        """
        self.world.main_decides(self._require_finite_weights)
        self._last_save = time.monotonic()
        if self.world.is_main:
            with self._going_on("curves"):
                self._curves.flush()
            with self._going_on("state"):
                self._weights.write_waiting()
                self._write_state()

    def _write_state(self) -> None:
        state = {
            **self._work_dir.identity,
            "world": self._began_on,
            "position": asdict(self.position),
            "tallies": self._tallies,
            "points": self._curves.latest(self.position.global_step),
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "card": self._card.model_dump(),
        }
        serial = self.position.global_step * 2 + (self.position.step == 0)
        self._work_dir.state.save(state, serial)

    def _restore(self) -> list[Point]:
        """Continue from the newest whole state; return the curves' points at its very step."""
        state, warnings = self._work_dir.state.load()
        for warning in warnings:
            self.log.info(f"warning: {warning}; resuming from the state before it")
        try:
            return self._restore_from(state)
        except Exception as error:  # a state that we did not write can be wrong in any way
            raise UserError(
                f"{self._work_dir.state.slots[0]}: cannot be resumed ({printable(error)}); "
                f"start over with --overwrite"
            ) from error

    def _restore_from(self, state: dict[str, Any]) -> list[Point]:
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average:
            self._average.load_state_dict(state["average"])
        self.position = Position(**state["position"])
        self._card = Card(**state.get("card", self._card.model_dump()))
        if state["tallies"]:
            total = np.sum(state["tallies"], axis=0).tolist() if self.world.is_main else None
            same_world = len(state["tallies"]) == self.world.size
            own = state["tallies"][self.world.rank] if same_world else total
            self._tally = Tally(self.world.device, own)
        self._tallies = state["tallies"]
        other_world = (
            f"; began on {self._began_on} processes, {self.world.size} now: the same steps of "
            f"{self.plan.step_size} samples, results equal up to floating-point order"
        )
        self.log.info(
            f"resuming from epoch {self.position.epoch + 1}, step {self.position.step}"
            + (other_world if self._began_on != self.world.size else "")
        )
        return state.get("points", [])

    # -- the report ---------------------------------------------------------------------------

    def _report(self) -> None:
        """Score the test split with the last and the best weights, and write the reports."""
        position = self.position
        chooser = "part of the training split, held out" if self.val_set else "the test split"
        self.world.main_decides(self._require_weights)
        last = self._weights_name(position.epoch)
        with self._averaged():
            self._report_on(
                "last", f"last epoch ({position.epoch}, step {position.global_step}, {last})"
            )
        best = self.world.broadcast(load_weights(self.folder / BEST) if self.world.is_main else {})
        apply_weights(self.model, best, BEST)
        step = (position.best_epoch - self.config.start_epoch) * self._batches.steps
        title = f"best epoch ({position.best_epoch}, step {step}, {BEST}, chosen on {chooser})"
        self._report_on("best", title, scores=True)
        if not self.val_set and self.config.evaluator is None:
            self.log.info(
                "note: the test split chose the best epoch, as is published practice; for an "
                "honest choice train with --val-fraction 0.1 and --work-dir OTHER"
            )
        if position.skipped:
            self.log.info(f"{position.skipped} steps were skipped for a loss that was not finite")
        self.log.info(f"peak memory of this process: {_peak_memory(self.world.device)}")
        self.log.info(
            f"in {self.folder}: weights {BEST}, best_test_confusion.png, "
            f"best_test_each_class_acc.csv, best_test_wrong.txt; "
            f"curves: tensorboard --logdir {shlex.quote(str(self.folder))}"
        )

    def _report_on(self, tag: str, title: str, *, scores: bool = False) -> None:
        evaluation = self._test_scorer(self.model, tag, self._handle_requests_in_report)
        self._publish(evaluation, f"{tag}_test", title, scores=scores)

    def _publish(self, found: Evaluation | None, stem: str, title: str, *, scores: bool) -> None:
        """Write the reports of rank 0's evaluation, and the scores where they are wanted.

        Raises:
            RunFailed: they cannot be written (on every rank).
        """

        def write() -> None:
            assert found is not None
            with self._finishable("reports"):
                self._publisher.report(found, stem, title)
                if scores:
                    self._publisher.scores(found, self._scored_card())

        self.world.main_decides(write)

    def _require_weights(self) -> None:
        """See that what the reports name is there, also where a run ends earlier than planned."""
        with self._finishable("weights"):
            self._weights.write_waiting()
            last = self._weights_name(self.position.epoch)
            if not (self.folder / last).exists():
                card = self._card_after(self.position.epoch, self.position.history[-1])
                with self._averaged():
                    self._weights.save(last, self.model.state_dict(), card)

    @contextlib.contextmanager
    def _finishable(self, what: str) -> Iterator[None]:
        """A disk that is full at the end fails the run, which the same command then finishes."""
        try:
            yield
        except OSError as error:
            raise RunFailed(
                f"{self.folder}: {what} cannot be written ({reason(error)}); make room, and "
                f"{AGAIN} from the last saved state"
            ) from error


def _add_up(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Add the ranks' gradients up: each loss is divided by the number of a step's micro-batches.

    An average over the ranks would round otherwise on another number of them.
    """
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def _duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _peak_memory(device: torch.device) -> str:
    """Largest memory so far: of the device on CUDA, else of this process where the system tells."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB on the device"
    if sys.platform == "win32":
        return "not known on this system"
    import resource  # absent on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{peak / 2**30:.2f} GiB"
