"""The training loop: train, evaluate, save, log, epoch after epoch, and a report at the end.

It trains anything that gives (inputs, label, index) and is scored by its logits. A run is a
function of (configuration, seed): sample order, augmentation and dropout are keyed by the
position in the run, never by what came before, so that there is no generator to save. What else
happens at a step or an epoch is a ``Callback``'s.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from .callbacks import Callback, Run
from .card import Card
from .checkpoint import apply_weights, load_weights
from .components import Components, make_average, make_loss, make_optimizer
from .config import Config
from .distributed import World
from .errors import UserError, told
from .evaluation import Evaluation, Evaluator, SplitScorer, logits_of
from .graphs import capture
from .loading import Batch, Dataset, Loader, TrainBatches, plan_batches
from .log import NAME, start_logging
from .numerics import fitting_memory, half_type, precision_of
from .parallel import RunningStatistics, parallelised
from .report import BEST, report, report_test
from .schedule import learning_rates
from .state import RunningMetrics, TrainState
from .summary import epoch_line, head
from .workdir import WorkDir


class Trainer(Run):
    """Everything a run needs, composed; ``fit`` and ``test`` are the two phases."""

    def __init__(
        self,
        config: Config,
        world: World,
        model: nn.Module,
        sets: Mapping[str, Dataset],
        *,
        card: Card,
        config_file: str = "config.yaml",
        components: Components | None = None,
        evaluator: Evaluator | None = None,
        command: Sequence[str] = (),
    ) -> None:
        """Make what may not fit the model or the data; nothing is written.

        Args:
            model: with its initial weights.
            components: what it trains with; a test needs none.
            command: what was typed, for the log.

        Raises:
            UserError: loss or optimiser do not fit.
        """
        self.config, self.world, self.model, self.sets = config, world, model, sets
        self.card, self.config_file, self.command = card, config_file, command
        self.chooser = "val" if "val" in sets else "test"
        self.folder = WorkDir(config.work_dir)
        self.callbacks: list[Callback] = []
        self.log = logging.getLogger(NAME)
        self.measured: dict[str, float] = {}
        self.gradient_norm = torch.zeros(())
        self._evaluator = evaluator
        model.to(world.device)
        if components is not None:
            labels = np.asarray(sets["train"].labels)
            num_class = getattr(model, "num_class", None) or int(labels.max()) + 1
            self._criterion = make_loss(config, components.loss, labels, num_class)
            self._criterion.to(world.device)
            self._optimizer = make_optimizer(config, components.optimizer, self._trained)
            self._components = components

    # -- the two phases ---------------------------------------------------------------------

    def fit(self) -> None:
        """Train to the last epoch, from a saved state where there is one, and report."""
        with self._to_the_end():
            self._set_up()
            for epoch in range(self.state.epoch, self.config.num_epoch):
                self._began = time.monotonic()
                self._train(epoch)
                self._evaluate(epoch)
                self._save(epoch)
                self._log()
            report(self)

    def test(self) -> None:
        """Score the test split with the model as it is, and write the reports."""
        with self._to_the_end():
            self._open_folder()
            self._log_head()
            self._scorers = {"test": self._scorer("test")}
            report_test(self)

    @contextlib.contextmanager
    def _to_the_end(self) -> Iterator[None]:
        try:
            with fitting_memory(self.config, self.world.device):
                yield
        finally:
            for callback in self.callbacks:
                callback.on_end(self)
            self.folder.close()

    # -- set-up -----------------------------------------------------------------------------

    def _set_up(self) -> None:
        self._open_folder()
        config, world, train_set = self.config, self.world, self.sets["train"]
        self.batches = TrainBatches(len(train_set), self.plan, world.rank, config.seed)
        self.steps, pin = self.batches.steps, world.device.type == "cuda"
        self._loader = Loader(train_set, self.batches, workers=config.num_worker, pin_memory=pin)
        self._scorers = {name: self._scorer(name) for name in {"test", self.chooser}}
        self._rates = learning_rates(config.model_dump(), config.num_epoch)
        self._average = make_average(config, self._components.averaging, self.model)
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=config.amp == "fp16")
        self.state = TrainState(self.model, self._optimizer, self._scaler, self._average, world)
        self.state.epoch = config.start_epoch
        if self.resumed:
            self.folder.restore(self)
        self._statistics = RunningStatistics(
            self.model, self.plan, world, can_undo=config.on_nonfinite == "skip"
        )
        for callback in self.callbacks:
            callback.on_start(self)
        if config.compile:
            self.log.info("note: torch.compile can take minutes before the first step")
            self.model.compile()
        if config.cuda_graphs:
            self._capture()
        self._parallel = parallelised(self.model, world, self._pass)
        self._log_head()

    def _open_folder(self) -> None:
        """Open the work dir and the log, with what can be wrong tried before.

        Start weights are loaded unless a run is resumed, which may have done without them since.
        """
        config, world, folder = self.config, self.world, self.folder
        fresh = not world.on_main(lambda: folder.may_resume(config))
        if fresh:
            self._plan(world.size)
            self._load_start()
        train_set = self.sets.get("train")
        begun = world.on_main(lambda: folder.open(config, self.config_file, train_set, world.size))
        self.resumed = begun is not None
        if begun is None and not fresh:
            self._load_start()
        self.began_on = begun.world if begun else world.size
        self.config = config.with_epochs(begun.epochs) if begun else config
        self._plan(self.began_on)
        self.log = start_logging(
            world.is_main, folder.path / "log.txt" if config.print_log else None
        )
        for note in (*config.notes, *folder.notes):
            self.log.info(f"note: {note}")

    def _load_start(self) -> None:
        config = self.config
        if config.weights is not None:
            loaded = load_weights(config.weights)
            apply_weights(self.model, loaded, config.weights, config.ignore_weights)

    def _log_head(self) -> None:
        for line in head(self) if self.world.is_main else ():
            self.log.info(line)

    def _plan(self, began_on: int) -> None:
        """Deal out the steps of a run that began on ``began_on`` processes."""
        if self.config.phase == "train":
            sizes = self.config.batch_size, self.config.global_batch_size
            plan = plan_batches(*sizes, began_on, samples=len(self.sets["train"]))
            self.plan = replace(plan, world=self.world.size)

    def _scorer(self, split: str) -> SplitScorer:
        return SplitScorer(self.sets[split], self.config, self.world, self._evaluator)

    def _pass(self, model: nn.Module) -> None:
        """Forward and backward pass of the first samples."""
        device = self.world.device
        inputs, labels, _ = self._loader.first(self.plan.micro)
        with precision_of(self.config, device):
            logits = logits_of(model(inputs.to(device)))
        self._criterion(logits.float(), labels.to(device)).backward()

    def _capture(self) -> None:
        """Have the model replay its passes, where there is a GPU."""
        if self.world.device.type != "cuda":
            self.log.info("note: cuda_graphs is for GPUs, and changes nothing here")
            return
        inputs = self._loader.first(self.plan.micro)[0].to(self.world.device)
        try:
            several = self.plan.accumulate > 1
            capture(self.model, inputs, half_type(self.config), accumulates=several)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UserError(
                f"cuda_graphs: the model's passes cannot be captured ({told(error)}); say "
                "--cuda-graphs False"
            ) from error

    @property
    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    # -- one epoch --------------------------------------------------------------------------

    def _train(self, epoch: int) -> None:
        """Take the steps of ``epoch`` that are left."""
        state, config = self.state, self.config
        self.rate = self._rates[epoch]
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._waited, started, first = 0.0, time.monotonic(), state.step
        self._parallel.train()
        batches = self._loader.epoch(epoch, first)
        title, quiet = f"epoch {epoch + 1}/{config.num_epoch}", None if self.world.is_main else True
        with tqdm(total=self.steps, initial=first, desc=title, disable=quiet, leave=False) as bar:
            while state.step < self.steps:
                self._step(batches)
                state.step, state.global_step = state.step + 1, state.global_step + 1
                for callback in self.callbacks:
                    callback.after_step(self)
                if bar.update():  # it is shown, some times a second
                    bar.set_postfix(loss=float(self.loss), rate=self.rate, refresh=False)
        samples = (self.steps - first) * self.plan.step_size
        seconds = max(time.monotonic() - started, 1e-9)
        speed = samples / seconds
        self._before = seconds * first / max(self.steps - first, 1)
        means = state.metrics.means(self.world) | {"samples_per_second": speed}
        self.measured = {"learning_rate": self.rate, **{f"train/{k}": v for k, v in means.items()}}

    def _step(self, batches: Iterator[Batch]) -> None:
        """One update: forward and backward of this rank's micro-batches, then the optimiser."""
        plan, metrics = self.plan, RunningMetrics(self.world.device)
        total = torch.zeros((), device=self.world.device)
        for turn in range(plan.accumulate):
            inputs, labels = self._next(batches)
            number = plan.number(turn, self.world.rank)
            counts = number < plan.count  # an idle turn only keeps the others company
            self._seed_dropout(number)
            self._statistics.before(turn)
            with self._gradients_kept_local(turn < plan.accumulate - 1):
                with precision_of(self.config, self.world.device):
                    logits = logits_of(self._parallel(inputs))
                loss = self._criterion(logits.float(), labels)
                with self.world.collective():
                    self._scaler.scale(counts * loss / plan.count).backward()
            self._statistics.after(turn, counts=counts)
            total += loss.detach() / plan.accumulate
            if counts:
                metrics.add(loss.detach(), logits.detach(), labels)
        self.loss = total
        wanted = [callback.after_backward(self, total) for callback in self.callbacks]
        if all(wanted):
            self._update()
            metrics.add_norm(self.gradient_norm)
            self.state.metrics.sums += metrics.sums
        else:
            self._statistics.undo()
        self._optimizer.zero_grad(set_to_none=True)

    def _next(self, batches: Iterator[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        started = time.monotonic()
        inputs, labels, _ = next(batches)
        self._waited += time.monotonic() - started
        device = self.world.device
        return inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    def _seed_dropout(self, number: int) -> None:
        """Key the generator by (seed, step, micro-batch), whoever computes it."""
        key = np.random.SeedSequence([self.config.seed, self.state.global_step, number])
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0]))

    def _gradients_kept_local(self, wanted: bool) -> Any:
        """Gradients travel once a step: with the last micro-batch."""
        if wanted and isinstance(self._parallel, DistributedDataParallel):
            return self._parallel.no_sync()
        return contextlib.nullcontext()

    def _update(self) -> None:
        """The optimiser's step, and its share in the average."""
        clip = self.config.clip_grad_norm
        self._scaler.unscale_(self._optimizer)
        gradients = [p.grad for p in self._trained if p.grad is not None]
        self.gradient_norm = nn.utils.get_total_norm(gradients)
        if clip is not None:
            nn.utils.clip_grads_with_norm_(self._trained, clip, self.gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average:
            self._average.update(self.state.epoch)

    def _evaluate(self, epoch: int) -> None:
        """Score the split that chooses the best epoch, where that is due."""
        state, config = self.state, self.config
        if (epoch + 1) % config.eval_interval and epoch + 1 < config.num_epoch:
            return
        with self.state.averaged():
            found = self.scored(self.chooser, self.chooser)
        measures = self.world.broadcast(found.measures if found else {})
        self.measured |= {f"{self.chooser}/{name}": value for name, value in measures.items()}
        if measures["accuracy"] > state.best_accuracy:
            state.best_accuracy, state.best_epoch = measures["accuracy"], epoch + 1

    def scored(self, split: str, title: str) -> Evaluation | None:
        """Score a split (the result on rank 0, None elsewhere); callbacks may break it off."""

        def interrupted() -> None:
            for callback in self.callbacks:
                callback.during_evaluation(self)

        return self._scorers[split](self.model, title, interrupted)

    def _save(self, epoch: int) -> None:
        """Save the weights where they are the best so far, or due, and move on."""
        config, state = self.config, self.state
        state.end_epoch(self.measured)
        if state.best_epoch == state.epoch:
            self.save_weights(BEST)
        due = epoch >= config.save_epoch and state.epoch % config.save_interval == 0
        if due or state.epoch == config.num_epoch:
            self.save_weights(self.last_name)
        for callback in self.callbacks:
            callback.on_save(self)

    def _log(self) -> None:
        """One line, and a point of each curve."""
        self.log.info(epoch_line(self, time.monotonic() - self._began, self._waited, self._before))
        self.show(self.measured)

    def show(self, values: dict[str, Any]) -> None:
        """Have the callbacks show values at this step."""
        for callback in self.callbacks:
            callback.on_log(self, values)

    # -- weights ----------------------------------------------------------------------------

    @property
    def last_name(self) -> str:
        """The file of the weights after the last epoch so far."""
        return f"runs-{self.state.epoch}-{self.state.global_step}.pt"

    def save_weights(self, name: str) -> None:
        """Save the weights after an epoch, and what is known of them."""
        if self.world.is_main:
            card = self.card.trained(
                epoch=self.state.epoch,
                global_step=self.state.global_step,
                accuracy=self.state.history[-1].get(f"{self.chooser}/accuracy"),
                accuracy_on=self.chooser,
            )
            with self.state.averaged():
                self.folder.save_weights(name, self.model.state_dict(), card)
