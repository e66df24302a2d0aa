"""Records what transformers and sentence-transformers compute with tiny text encoders of random weights:
`python encoders.py`, after `pip install sentence-transformers` (the versions used are in README.md). No model is downloaded.

Each folder of encoders/ is a model as its writer saves it, with expected.json beside it: texts, their token ids, and their
embeddings (computed in f64 where the code allows, from weights that f32 holds exactly)."""
import json, os, shutil
import torch, transformers, sentence_transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig, BertModel, BertTokenizer, CamembertConfig, CamembertForMaskedLM, CamembertTokenizer, DistilBertConfig,
    DistilBertModel, DistilBertTokenizer, ModernBertConfig, ModernBertModel, MPNetConfig, MPNetModel, MPNetTokenizer,
    PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM, RobertaTokenizer, XLMRobertaConfig, XLMRobertaModel,
    XLMRobertaTokenizer,
)
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, LayerNorm, Normalize, Pooling, Transformer

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "encoders")
WORDS = "the a cat dog river sings rain walks over under red blue ##s ##ing ##ed hello world caf é cafe query text".split()
LETTERS = [c for c in "abcdefghijklmnopqrstuvwxyz.,!?"]
CORPUS = [
    "the cat sings over the river", "a red dog walks under blue rain", "hello world, hello river!",
    "rain and rivers sing to walking dogs", "the cafe is under the red river", "query: what does the cat sing?",
] * 4
TEXTS = [
    "The cat sings over the river.",
    "dog",
    "",
    "Hello World, the RED café walked under a blue rain and the dogs were singing over and over, again and again!",
    "river rain",
    " ".join(["the cat walks over a red river, the dog sings under blue rain."] * 3),
]
SIZES = dict(num_hidden_layers=2, num_attention_heads=4, hidden_size=32, intermediate_size=44)
POOLINGS = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def randomise(model, seed):
    """Weights that f32 holds exactly, larger than a fresh model's, so that every part matters."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            spread = torch.randn(p.shape) * (0.3 if p.dim() > 1 else 0.2)
            if p.dim() == 1 and name.endswith("weight"):
                spread += 1.0
            p.copy_(spread)
    return model.eval()


def save(name, model, tokenizer):
    folder = os.path.join(here, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentence(folder, modules=None, max_seq_length=None, do_lower_case=False, **more):
    """A sentence-transformers folder around a saved transformer."""
    given = {} if max_seq_length is None else {"max_seq_length": max_seq_length}
    first = Transformer(folder, do_lower_case=do_lower_case, **given)
    return SentenceTransformer(modules=[first] + modules(first.get_embedding_dimension()), **more)


def numbers(values):
    return [[float(f"{v:.8e}") for v in row] for row in torch.as_tensor(values).double().tolist()]


def encode(model, texts=TEXTS, **given):
    model = model.double()
    return numbers(model.encode(list(texts), batch_size=len(texts), convert_to_tensor=True, **given))


def ids(model, texts=TEXTS):
    longest = model.max_seq_length
    return [model.tokenizer(t, truncation=True, max_length=longest)["input_ids"] for t in texts]


def write(folder, **expected):
    with open(os.path.join(folder, "expected.json"), "w") as out:
        out.write("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in expected.items()) + "\n}\n")
    for name in ["README.md", ".gitattributes"]:
        if os.path.exists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))
    print(os.path.basename(folder), sum(len(i) for i in expected["ids"]), "tokens")


def pieces(specials):
    return {t: i for i, t in enumerate(dict.fromkeys(specials + WORDS + LETTERS + ["##" + c for c in LETTERS]))}


def unigram(first):
    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=90, unk_token="<unk>", special_tokens=first))
    return [tuple(p) for p in json.loads(t.to_str())["model"]["vocab"]]


def bytes_and_merges(specials):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=alphabet))
    model = json.loads(t.to_str())["model"]
    return model["vocab"], [tuple(m) for m in model["merges"]]


def plain(folder, pooling="mean"):
    """The transformer alone with one way of pooling, not normalised."""
    return sentence(folder, lambda n: [Pooling(n, pooling)])


def bert():
    """As sentence-transformers saves it: every way of pooling, Dense, prompts, lower case before a cased tokenizer."""
    vocabulary = pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=80, **SIZES)
    model = randomise(BertModel(config, add_pooling_layer=False), 1)
    folder = save("bert", model, BertTokenizer(vocab=vocabulary, do_lower_case=False))
    poolings = {p: encode(sentence(folder, lambda n: [Pooling(n, p)], do_lower_case=True)) for p in POOLINGS}
    joined = ["mean", "cls", "lasttoken"]
    poolings["+".join(joined)] = encode(sentence(folder, lambda n: [Pooling(n, joined)], do_lower_case=True))
    prompts = {"query": "query: ", "red": "the red "}
    without = {
        p: encode(sentence(folder, lambda n: [Pooling(n, p, include_prompt=False)], do_lower_case=True), prompt="query: ")
        for p in POOLINGS
    }

    def modules(n):
        torch.manual_seed(11)
        dense = [
            Dense(2 * n, 20, activation_function=torch.nn.GELU()),
            Dense(20, 20, bias=False, use_residual=True),
            Dense(20, 12, activation_function=torch.nn.Identity(), use_residual=True),
        ]
        return [Pooling(n, ("mean", "max")), dense[0], LayerNorm(20), dense[1], dense[2], Normalize()]

    kwargs = dict(prompts=prompts, default_prompt_name="red", similarity_fn_name="dot", truncate_dim=9)
    whole = sentence(folder, modules, max_seq_length=24, do_lower_case=True, **kwargs)
    randomise(whole[3], 12)
    given = dict(embeddings=encode(whole), query=encode(whole, prompt_name="query"), none=encode(whole, prompt=""))
    lower = sentence(folder, modules, max_seq_length=24, do_lower_case=True)
    kept = ids(lower)
    whole.float().save_pretrained(folder, create_model_card=False)
    # as older versions say what newer ones build into the tokenizer
    sized = os.path.join(folder, "sentence_bert_config.json")
    said = json.load(open(sized))
    json.dump({**said, "max_seq_length": 24, "do_lower_case": True}, open(sized, "w"), indent=1)
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=False)
    tokenizer.save_pretrained(folder)
    write(folder, texts=TEXTS, ids=kept, poolings=poolings, without_prompt=without, **given)


def distilbert():
    """An older checkpoint: vocab.txt alone, norms' weights called gamma and beta, a prefix."""
    vocabulary = pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    config = DistilBertConfig(
        vocab_size=len(vocabulary), max_position_embeddings=80, dim=32, n_layers=2, n_heads=4, hidden_dim=44, activation="relu")
    model = randomise(DistilBertModel(config), 2)
    tokenizer = DistilBertTokenizer(vocab=vocabulary)
    folder = save("distilbert", model, tokenizer)
    expected = plain(folder)
    write(folder, texts=TEXTS, ids=ids(expected), mean=encode(expected))
    from safetensors.torch import load_file, save_file
    file = os.path.join(folder, "model.safetensors")
    renamed = lambda n: n.replace("layer_norm.weight", "layer_norm.gamma").replace("layer_norm.bias", "layer_norm.beta") \
        .replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    tensors = {"0.auto_model.distilbert." + renamed(n): t for n, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    os.remove(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "vocab.txt"), "w") as out:
        out.writelines(t + "\n" for t in vocabulary)


def roberta():
    """A checkpoint with a head; tokenizer.json, vocab.json and merges.txt. One text has a literal padding token."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary, merges = bytes_and_merges(specials)
    config = RobertaConfig(
        vocab_size=len(vocabulary), max_position_embeddings=130, type_vocab_size=1, layer_norm_eps=1e-5, **SIZES)
    model = randomise(RobertaForMaskedLM(config), 3)
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=100)
    folder = save("roberta", model, tokenizer)
    texts = TEXTS + ["the cat <pad> sings <mask> over"]
    expected = plain(folder, "lasttoken")
    write(folder, texts=texts, ids=ids(expected, texts), lasttoken=encode(expected, texts))
    json.dump(vocabulary, open(os.path.join(folder, "vocab.json"), "w"))
    with open(os.path.join(folder, "merges.txt"), "w") as out:
        out.writelines(["#version: 0.2\n"] + [f"{a} {b}\n" for a, b in merges])


def xlm_roberta():
    vocabulary = unigram(["<s>", "<pad>", "</s>", "<unk>"]) + [("<mask>", 0.0)]
    config = XLMRobertaConfig(
        vocab_size=len(vocabulary), max_position_embeddings=130, type_vocab_size=1, layer_norm_eps=1e-5, **SIZES)
    model = randomise(XLMRobertaModel(config, add_pooling_layer=False), 4)
    folder = save("xlm-roberta", model, XLMRobertaTokenizer(vocab=vocabulary))
    expected = plain(folder, "weightedmean")
    write(folder, texts=TEXTS, ids=ids(expected), weightedmean=encode(expected))


def camembert():
    """A checkpoint with a head, so that weights begin with roberta."""
    vocabulary = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0), ("<unk>NOTUSED", -100.0),
                  ("<s>", 0.0), ("</s>", 0.0)] + [p for p in unigram(["<unk>"]) if p[0] != "<unk>"] + [("<mask>", 0.0)]
    config = CamembertConfig(
        vocab_size=len(vocabulary), max_position_embeddings=130, type_vocab_size=1, layer_norm_eps=1e-5,
        bos_token_id=5, eos_token_id=6, **SIZES)
    model = randomise(CamembertForMaskedLM(config), 5)
    folder = save("camembert", model, CamembertTokenizer(vocab=vocabulary))
    expected = plain(folder)
    write(folder, texts=TEXTS, ids=ids(expected), mean=encode(expected))


def mpnet():
    """Distances of every sort of bucket."""
    vocabulary = pieces(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])
    config = MPNetConfig(vocab_size=len(vocabulary), max_position_embeddings=210, layer_norm_eps=1e-5, **SIZES)
    model = randomise(MPNetModel(config, add_pooling_layer=False), 6)
    tokenizer = MPNetTokenizer(vocab=vocabulary, model_max_length=200)
    folder = save("mpnet", model, tokenizer)
    texts = TEXTS + [" ".join(["the dog sings under a blue river, hello!"] * 16)]
    expected = plain(folder)
    buckets = MPNetModel(config).encoder.relative_position_bucket(torch.arange(-200, 201)).tolist()
    write(folder, texts=texts, ids=ids(expected, texts), mean=encode(expected, texts), buckets=buckets)


def modernbert():
    """Layers that see all tokens and layers that see those near by; the older configuration is config_older.json."""
    specials = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
    vocabulary, merges = bytes_and_merges(specials)
    t = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=t, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]",
        model_max_length=90, model_input_names=["input_ids", "attention_mask"])
    sizes = {**SIZES, "num_hidden_layers": 4}
    config = ModernBertConfig(
        vocab_size=len(vocabulary), max_position_embeddings=128, local_attention=12, pad_token_id=2, bos_token_id=0,
        cls_token_id=0, eos_token_id=1, sep_token_id=1, **sizes)
    model = randomise(ModernBertModel(config), 7)
    folder = save("modernbert", model, tokenizer)
    expected = plain(folder)
    write(folder, texts=TEXTS, ids=ids(expected), mean=encode(expected))
    older = json.load(open(os.path.join(folder, "config.json")))
    for key in ["rope_parameters", "layer_types"]:
        older.pop(key)
    older.update(global_rope_theta=160000.0, local_rope_theta=10000.0, global_attn_every_n_layers=3)
    json.dump(older, open(os.path.join(folder, "config_older.json"), "w"), indent=1)


for make in [bert, distilbert, roberta, xlm_roberta, camembert, mpnet, modernbert]:
    make()
print("torch", torch.__version__, "transformers", transformers.__version__,
      "sentence-transformers", sentence_transformers.__version__)
