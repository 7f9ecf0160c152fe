"""LSTM over time with a shortcut around it, as in SEANet."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from codeczoo.nn.stream import Layer


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
        y, state[0] = self.lstm(x.permute(2, 0, 1), state[0])  # (T, B, C)
        return y.permute(1, 2, 0) + x


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
        if lengths is None:
            y, _ = self.lstm(steps)
        else:
            packed, _ = self.lstm(pack_padded_sequence(steps, lengths.cpu(), enforce_sorted=False))
            y, _ = pad_packed_sequence(packed, total_length=len(steps))
        return (y + torch.cat([steps, steps], 2)).permute(1, 2, 0)
