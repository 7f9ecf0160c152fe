"""LSTM over time with a shortcut around it, as in SEANet."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from codeczoo.nn import fast1d
from codeczoo.nn.stream import Layer

SHORT = 16  # steps of a piece that take single cells less time


class LSTM(Layer):
    """lstm(x) + x, from a state of zeros.

    Source: EnCodec's SLSTM (github.com/facebookresearch/encodec).

    Args:
        dim: channels in and out.
        layers: of the LSTM.
    """

    def __init__(self, dim: int, layers: int = 2) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, layers)
        self._kept = [fast1d.Kept() for _ in range(layers)]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return self.step(x, self.begin())

    def begin(self) -> list[tuple[Tensor, Tensor] | None]:
        """See Layer."""
        return [None]

    def step(self, x: Tensor, state: list[tuple[Tensor, Tensor] | None], last: bool = False) -> Tensor:
        """See Layer."""
        if not x.shape[2]:
            return x
        steps = x.permute(2, 0, 1)  # (T, B, C)
        short = len(steps) <= SHORT and fast1d.applies(x)
        with _taken(steps) as given:
            y, state[0] = self._cells(steps, state[0]) if short else self.lstm(given, state[0])
        return y.permute(1, 2, 0) + x

    def _cells(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As the LSTM, for few steps: oneDNN would pack all of its weights first.

        A vector times (inputs, outputs) took half the time of one times torch's (outputs, inputs).
        """
        zeros = x.new_zeros(self.lstm.num_layers, *x.shape[1:])
        ends, dtype = [], fast1d.precision(x)
        layers = zip(self.lstm.all_weights, self._kept, *(state or (zeros, zeros)), strict=True)
        for (w_x, w_h, b_x, b_h), kept, hidden, cell in layers:
            weight = kept.get(partial(_both, w_x, w_h, dtype), dtype, w_x, w_h)
            bias, outputs = (b_x + b_h).to(dtype), []
            for step in x:
                gates = torch.addmm(bias, torch.cat([step, hidden], 1).to(dtype), weight)  # (B, 4 D)
                take, forget, new, give = gates.chunk(4, 1)
                cell = forget.sigmoid() * cell + take.sigmoid() * new.tanh()
                hidden = give.sigmoid() * cell.tanh()
                outputs.append(hidden)
            x = torch.stack(outputs)
            ends.append((hidden, cell))
        return x, (torch.stack([end[0] for end in ends]), torch.stack([end[1] for end in ends]))


@contextmanager
def _taken(x: Tensor) -> Iterator[Tensor]:
    """Gives x as torch's LSTM takes it: in float32, without autocast, where it has none in bfloat16."""
    if fast1d.lacks(x):
        with torch.autocast("cpu", enabled=False):
            yield x.float()
    else:
        yield x


def _both(w_x: Tensor, w_h: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (4 D, D) of what comes in and of the state, as one (2 D, 4 D)."""
    return torch.cat([w_x, w_h], 1).t().to(dtype).contiguous()


class BiLSTM(Layer):
    """lstm(x) + (x, x), forwards and backwards: twice as many channels.

    Source: SpeechTokenizer (github.com/ZhangXInFD/SpeechTokenizer).

    Args:
        dim: channels in.
        layers: of the LSTM.
    """

    stateless = "its LSTM also runs backwards from the end"

    def __init__(self, dim: int, layers: int = 2) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, layers, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        steps = x.permute(2, 0, 1)  # (T, B, C)
        with _taken(steps) as given:
            if lengths is None:
                y, _ = self.lstm(given)
            else:
                packed, _ = self.lstm(pack_padded_sequence(given, lengths.cpu(), enforce_sorted=False))
                y, _ = pad_packed_sequence(packed, total_length=len(steps))
        return (y + torch.cat([steps, steps], 2)).permute(1, 2, 0)
