"""Federated: clients with private data share only their predictions on a public set."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from edgekd.data.load import load_data
from edgekd.data.npz import npy_bytes
from edgekd.data.samples import Augmentation, Data, Samples
from edgekd.data.seeds import derive_seed, seeded
from edgekd.errors import EdgekdError, InputError
from edgekd.network.evaluation import predict
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._faults import answer_faults, class_faults
from edgekd.stages.distill.schemes._networks import as_teacher, fresh
from edgekd.stages.distill.schemes._stand_in import only
from edgekd.store import write_beside
from edgekd.training.checkpoint import sha256_of_state
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.loop import fit_labels
from edgekd.training.teachers import Teacher
from edgekd.training.teachers.black_box import BlackBox
from edgekd.training.teachers.logits import open_logits
from edgekd.training.teachers.outputs import Outputs
from edgekd.values.recipe import DataTable
from edgekd.values.tree import described, same_form


@SCHEMES.register(paper="https://arxiv.org/abs/1910.03581")
class Federated(Scheme):
    """Clients learn on private samples; the weighted mean of their soft predictions teaches all.

    FedMD (Li & Wang 2019) with FedDF's server student (Lin et al. 2020). Each of `rounds`: every
    client trains for `local_epochs` on its own samples and writes its logits for the public samples
    to a file in half precision; nothing else leaves it. The server's student, and with `digest`
    each client too, then learns on the public samples without labels, by the recipe's `losses` from
    sum_k (n_k / n) softmax(z_k / T), with n_k samples at client k. `public` is a separate data
    table; otherwise `public_share` of the training samples is set aside. The clients' shares of
    each class are drawn from a Dirichlet distribution: a small `concentration` is uneven.
    """

    example: ClassVar[Mapping[str, Any]] = {"clients": 2, "public_share": 0.2}

    clients: PositiveInt = 3
    rounds: PositiveInt = 2
    local_epochs: PositiveInt = 1
    public: DataTable | None = None
    public_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    concentration: PositiveFloat = 1.0
    digest: bool = True

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = class_faults(context, "federated") + answer_faults(context, "federated")
        place = f"{context.where}: scheme"
        if self.clients < 2:
            message = "a single client has no others to learn from"
            faults.append(InputError(message, where=f"{place}.clients", allowed="at least two"))
        if self.public is None and not self.public_share:
            message = "there is no public set on which clients could share their predictions"
            hint = 'set public_share = 0.2, or public = { source = "public.npz" }'
            faults.append(InputError(message, where=f"{place}.public", hint=hint))
        if faults:
            return faults
        try:
            public, private = self._parts(context)
        except InputError as fault:
            return list(getattr(fault, "faults", (fault,)))
        if not same_form(public.example, context.data.example):
            message = f"the public samples have shape {described(public.example)}"
            allowed = described(context.data.example)
            faults.append(InputError(message, where=f"{place}.public", allowed=allowed))
        for number, part in enumerate(private, 1):
            if len(part.train) < 2:
                message = f"client {number} gets only {len(part.train)} samples"
                hint = "use fewer clients or a larger concentration"
                faults.append(InputError(message, where=f"{place}.concentration", hint=hint))
        return faults or check_teaching(
            student, context.with_teachers([as_teacher(student, "a client")])
        )

    def content(self, folder: Path) -> str:
        return "" if self.public is None else load_data(self.public, folder).train.sha256

    def cost(self, context: Context) -> str:
        learners = self.clients + 1 if self.digest else 1
        return (
            f"{self.rounds} rounds: {self.local_epochs} epochs at each of {self.clients} clients, "
            f"then {context.teaching.epochs} epochs on the public samples for {learners} networks"
        )

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        public, private = self._parts(context)
        learning = replace(context, data=public, cache=None).with_teaching(label_weight=0.0)
        clients = [fresh(student, context.seed, "client", n) for n in range(self.clients)]
        for number in range(1, self.rounds + 1):
            for client, network in enumerate(clients):
                own = replace(context, seed=context.seed + number, data=private[client])
                own = own.with_teaching(epochs=self.local_epochs, keep="last")
                fit_labels(network, own.phase(f"round-{number}/client-{client + 1}"))
            clients_as_teachers = [
                self._as_teacher(network, client, len(private[client].train), learning, number)
                for client, network in enumerate(clients)
            ]
            phase = replace(learning, seed=context.seed + number, teachers=clients_as_teachers)
            teach(student, phase.phase(f"round-{number}/server"))
            if self.digest and number < self.rounds:
                for client, network in enumerate(clients):
                    teach(network, phase.phase(f"round-{number}/digest-{client + 1}"))
        sizes = ", ".join(str(len(part.train)) for part in private)
        public_count = len(public.train)
        return SchemeResult(student, f"clients with {sizes} samples, {public_count} public samples")

    def _as_teacher(
        self, network: nn.Module, client: int, size: int, context: Context, number: int
    ) -> Teacher:
        """A client as the others see it: a file of its logits for the public samples."""
        answers = predict(network, context.data.train).half().numpy()
        path = context.work / f"round-{number}" / f"answers-{client + 1}.npy"
        write_beside(path, npy_bytes(answers))
        return BlackBox(
            name=f"client {client + 1}",
            key=sha256_of_state(network),
            weight=float(size),
            predict=open_logits(path, context.data, context.where),
            outputs=Outputs(),
        )

    def _parts(self, context: Context) -> tuple[Data, list[Data]]:
        """The public data, without labels, and each client's own."""
        train, order = context.data.train, torch.arange(len(context.data.train))
        if self.public is not None:
            public_samples = load_data(self.public, context.folder).train
        else:
            with seeded(context.seed, "public"):
                order = torch.randperm(len(train))
            count = max(1, round(self.public_share * len(train)))
            public_samples, order = train.take(order[:count]), order[count:]
        shares = dirichlet_shares(train.y[order], self.clients, self.concentration, context.seed)
        private = [only(context.data, train.take(order[part])) for part in shares]
        nameless = public_samples.relabelled(torch.zeros(len(public_samples), dtype=torch.int64))
        nameless = Samples(nameless.inputs, nameless.y)  # recorded logits are in this order
        public = only(context.data, nameless, context.data.validation)
        return _unchanged(public), private


def _unchanged(data: Data) -> Data:
    """Without augmentation: recorded logits belong to the samples as they are."""
    rows = len(data.train)
    return replace(data, augmentation=Augmentation(), training_rows=rows, held_back=False)


def dirichlet_shares(y: torch.Tensor, clients: int, alpha: float, seed: int) -> list[torch.Tensor]:
    """Positions of each client's samples: each class is split by a draw of Dirichlet(alpha)."""
    random = np.random.default_rng(derive_seed(seed, "clients"))
    parts: list[list[torch.Tensor]] = [[] for _ in range(clients)]
    for label in torch.unique(y).tolist():
        places = (y == label).nonzero().flatten()
        places = places[torch.from_numpy(random.permutation(len(places)))]
        cuts = (np.cumsum(random.dirichlet([alpha] * clients))[:-1] * len(places)).round()
        for part, chosen in zip(
            parts, torch.tensor_split(places, cuts.astype(int).tolist()), strict=True
        ):
            part.append(chosen)
    return [torch.cat(part).sort().values for part in parts]
