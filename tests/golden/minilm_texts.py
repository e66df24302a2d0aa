"""Records token ids of odd texts: `python minilm_texts.py`, after `pip install tokenizers==0.23.3` and `samples/models/fetch minilm`."""
import json, os, random
from tokenizers import Tokenizer

here = os.path.dirname(os.path.abspath(__file__))
t = Tokenizer.from_file(os.path.join(here, "../../samples/models/minilm/tokenizer.json"))
t.no_padding()

random.seed(7)
words = "the cat naïve Straße 北京 running unbelievably-long hyphen's 3.14159 U.S.A. 🙂 zzzzqqqq".split()
texts = {
    "empty": "",
    "blanks": " \t\r\n  \u00a0\u3000 ",
    "emoji": "I ❤️ 🍕 and 👩‍👩‍👧‍👦 🏳️‍🌈 flags 🇩🇪",
    "arabic": "مرحبا بالعالم، كيف حالك اليوم؟ اللُّغَةُ العَرَبِيَّة",
    "chinese": "我爱北京天安门。機器學習𠀀很有趣",
    "japanese and korean": "東京タワーへ行きました。ﾊﾝｶｸ 안녕하세요 세계",
    "hindi, thai, hebrew": "नमस्ते दुनिया สวัสดีชาวโลก שָׁלוֹם עולם",
    "mask": "Paris is the [MASK] of France. [CLS] [SEP] [PAD] [UNK] [mask] [MASK][MASK]x",
    "zero width": "zero\u200bwidth\u200cjoin\u200der \ufeffbom soft\u00adhyphen \u2060word",
    "word of 100 characters": "a" * 100,
    "word of 101 characters": "a" * 101 + " and more",
    "word of 101 wide characters": "é" * 101,
    "nul": "a\0b \0 c\x01\x02\x7f\x85d",
    "replacement": "bad \ufffd bytes \ufffe\uffff",
    "accents": "Crème Brûlée ÅNGSTRÖM İstanbul ﬁne ǅ ß ẞ e\u0301 a\u0308\u0328",
    "punctuation": "«Hello»—it's… 50%/100$ <tag attr=\"x\">&amp; C:\\path\\file.txt #1 @home ^_^ ~`|",
    "numbers": "1234567890 1,000,000.50 ½ ² ① Ⅷ ٣٤٥",
    "long subwords": "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis ##ing ## #",
    "2000 words": " ".join(random.choice(words) for _ in range(2000)),
    "2000 letters of one word": "ab" * 1000,
}
for i in range(30):
    chars = [random.choice([random.randrange(32, 127), random.randrange(0x80, 0x3000), random.randrange(0x10000)]) for _ in range(60)]
    texts[f"random {i}"] = "".join(chr(c) if not 0xD800 <= c < 0xE000 else " " for c in chars)

items = []
for name, text in texts.items():
    for limit in (256, 16):
        t.enable_truncation(limit)
        items.append({"name": name, "text": text, "max_tokens": limit, "token_ids": t.encode(text).ids})
t.enable_truncation(20)
pairs = []
for a, b in [("", ""), ("a question?", "an answer"), ("one", "two " * 40), ("one " * 40, "two"), ("one " * 40, "two " * 40)]:
    e = t.encode(a, b)
    pairs.append({"first": a, "second": b, "max_tokens": 20, "token_ids": e.ids, "type_ids": e.type_ids})
with open(os.path.join(here, "minilm_texts.json"), "w") as out:
    json.dump({"items": items, "pairs": pairs}, out, indent=None, separators=(",", ":"))
    out.write("\n")
