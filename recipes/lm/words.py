"""Makes a tokenizer of whole words out of a field of what an export says of its documents, e.g. of class names.

python recipes/lm/words.py tokens/train label -o words
codeczoo export --from tokens/train -o lm/train --format litdata --tokenizer words --text label
"""

import argparse

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import codeczoo.export


def main() -> None:
    """Writes the tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export")
    parser.add_argument("field")
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    said = ((document.about or {}).get(args.field) for document, _ in codeczoo.export.read(args.export))
    words = ["<unk>", "<eos>", *sorted({word for text in said if text is not None for word in str(text).split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>")
    made.save_pretrained(args.output)
    print(f"{len(words)} words in {args.output}: {' '.join(words[:20])}")


if __name__ == "__main__":
    main()
