"""Begins channels of an FSQ anew that have come to say nothing, in the codec of a one-stage TiTok or One-D-Piece.

    python tools/revive.py image-1d photos/ -o revived.safetensors
    codeczoo train image/one_d_piece_small_128px ... "+task.warm_start.all={_target_: codeczoo.engine.parts.WarmStart,
        path: revived.safetensors, prefixes: {encoder: encoder, decoder: decoder, head: head}}"

The bound of an FSQ is flat at its ends: a channel whose latents have drifted there gets no gradient, and has one level
ever after. `codeczoo export --factors LEVELS` and `codeczoo inspect` show how often each level of each channel occurs.

Such a channel's row of the encoder's last projection begins anew, at right angles to the others, with mean 0 and spread
1 over the pictures; the decoder's first projection reads nothing of it, and has its old mean in its bias. So what is
decoded stays nearly as it is, until training finds a use for the channel.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codeczoo import zoo
from codeczoo.core.errors import InputError
from codeczoo.export.pictures import see
from codeczoo.image.titok import TiTok
from codeczoo.io import image
from codeczoo.io.files import find
from codeczoo.quantizers.fsq import FSQ


def revive(codec: TiTok, x: Tensor, below: float, seed: int = 0) -> list[int]:
    """Changes the codec in place.

    Args:
        codec: with an FSQ, on the CPU.
        x: pictures (B, 3, H, W) as the codec sees them.
        below: a channel is dead where its values, -1..1, spread less.
        seed: of the new rows.

    Returns:
        The channels that were dead.
    """
    project, embed = codec.encoder.project, codec.decoder.embed
    assert isinstance(project, nn.Linear) and isinstance(embed, nn.Linear)
    z = codec.encoder(x)  # (B, D, N)
    values = codec.quantizer.decode(codec.quantizer.encode(z)).transpose(0, 1).flatten(1)  # (D, B * N)
    dead = [i for i, spread in enumerate(values.std(1).tolist()) if spread < below]
    alive = [i for i in range(len(values)) if i not in dead]
    rows, generator = project.weight[alive].T, torch.Generator().manual_seed(seed)  # (width, n)
    for i in dead:
        basis, _ = torch.linalg.qr(rows)
        row = torch.randn(project.in_features, generator=generator)
        row -= basis @ (basis.T @ row)
        project.weight[i], project.bias[i] = row, 0.0
        new = codec.encoder(x)[:, i]
        project.weight[i] /= new.std()
        project.bias[i] = -new.mean() / new.std()
        embed.bias += embed.weight[:, i] * values[i].mean()
        embed.weight[:, i] = 0.0
        rows = torch.cat([rows, project.weight[i, :, None]], 1)
    return dead


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the codec."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec", help="weights file, run folder or name")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="training pictures: files, folders, patterns")
    parser.add_argument("-o", "--output", required=True, metavar="FILE")
    parser.add_argument("--below", type=float, default=0.2, help="spread of a dead channel's values (default .2)")
    parser.add_argument("--pictures", type=int, default=128, help="at most so many, evenly (default 128)")
    args = parser.parse_args(arguments)
    codec = zoo.load(args.codec)
    if not (isinstance(codec, TiTok) and isinstance(codec.quantizer, FSQ)):
        raise InputError(f"{args.codec}: a TiTok or One-D-Piece with an FSQ is wanted")
    found = find(args.paths, image.SUFFIXES)
    chosen = found[:: max(1, len(found) // args.pictures)][: args.pictures]
    x = torch.cat([see(image.read(one.path), codec.spec, "crop")[0] for one in chosen])
    with torch.no_grad():
        dead = revive(codec, x, args.below)
    if not dead:
        raise InputError(f"{args.codec}: all channels spread {args.below} or more; nothing is written")
    zoo.save(args.output, codec)
    print(f"{args.output}: begun anew of channels 0..{codec.quantizer.dim - 1}: {', '.join(map(str, dead))}")


if __name__ == "__main__":
    main()
