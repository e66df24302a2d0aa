"""Records token ids of tokenizers that transformers makes of vocabulary files and settings: `python tokenizer_settings.py`
writes encoders/tokenizers.json (the versions used are in README.md). Nothing is downloaded."""
import json, os
import transformers
from transformers import BertTokenizer, DistilBertTokenizer, MPNetTokenizer, RobertaTokenizer

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "encoders")
WORDS = "the cat Cat caf ##é ##e É E é e 你 好 ##好 world World über uber ##s , ! ( )".split()
LETTERS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
TEXTS = [
    "The Cat in the CAFÉ, café!", "你好 world 你好世界", "über UBER cats", "a [MASK] b<mask>c </s> [SEP]", "tabs\tand\u00a0spaces\u200b (x)",
    "", "the query: the\ncat",
]


def vocabulary(specials):
    return {t: i for i, t in enumerate(dict.fromkeys(specials + WORDS + LETTERS + ["##" + c for c in LETTERS]))}


bert = vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
mpnet = vocabulary(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])
other = vocabulary(["<pad>", "<unk>", "<start>", "<end>", "<mask>"])
named = dict(pad_token="<pad>", unk_token="<unk>", cls_token="<start>", sep_token="<end>", mask_token="<mask>")
roberta = json.load(open(os.path.join(here, "roberta", "vocab.json")))
lines = open(os.path.join(here, "roberta", "merges.txt")).read().splitlines()[1:]
merges = [tuple(line.split(" ")) for line in lines]

CASES = [
    (BertTokenizer, bert, {}),
    (BertTokenizer, bert, {"do_lower_case": False}),
    (BertTokenizer, bert, {"do_lower_case": True, "strip_accents": False}),
    (BertTokenizer, bert, {"do_lower_case": False, "strip_accents": True}),
    (BertTokenizer, bert, {"tokenize_chinese_chars": False}),
    (BertTokenizer, other, named),
    (DistilBertTokenizer, bert, {"do_lower_case": False}),
    (MPNetTokenizer, mpnet, {}),
    (MPNetTokenizer, mpnet, {"do_lower_case": False}),
    (RobertaTokenizer, "roberta", {}),
    (RobertaTokenizer, "roberta", {"add_prefix_space": True}),
]
results = []
for cls, given, settings in CASES:
    files = dict(vocab=roberta, merges=merges) if given == "roberta" else dict(vocab=given)
    t = cls(**files, **settings)
    results.append({
        "class": cls.__name__, "settings": settings, "vocabulary": given if given == "roberta" else list(given),
        "ids": [t(text)["input_ids"] for text in TEXTS],
        "pair": t("the cat", "a world")["input_ids"],
    })
with open(os.path.join(here, "tokenizers.json"), "w") as out:
    rows = ",\n  ".join(json.dumps(r, ensure_ascii=False) for r in results)
    out.write(f'{{\n "texts": {json.dumps(TEXTS, ensure_ascii=False)},\n "cases": [\n  {rows}\n ]\n}}\n')
print("transformers", transformers.__version__, len(results), "cases")
