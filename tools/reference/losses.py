#!/usr/bin/env python3
"""Makes tests/fixtures/losses.h: values and gradients of every loss, for tests/unit/test_losses.c.

In f64, from PyTorch Metric Learning 2.9 and Open Metric Learning 4.0 where they have the loss, else from the equation of the
paper written in PyTorch below. Needs the packages of tools/reference/requirements.txt.
"""
import itertools
import math
import os

import torch
from pytorch_metric_learning import distances, losses, miners


N, DIM = 16, 6
F64 = torch.float64
torch.set_num_threads(1)  # sums whose last digit does not depend on the machine
generator = torch.Generator().manual_seed(11)


def draw(*shape):
    # Few significant bits: exact in seven digits, short in print.
    return torch.round(torch.randn(*shape, generator=generator, dtype=F64) * 64) / 64


def duplicates():
    x = draw(N, DIM)
    x[1] = x[0]  # of one class
    x[6] = x[2]  # of two classes
    x[9] = 2 * x[8]  # the same once normalised
    return x


BATCHES = [  # name, embeddings, labels, number of classes
    ("plain", draw(N, DIM), [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4, 4),
    ("uneven", duplicates(), [0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 4, 4, 5, 3, 0], 7),
    ("one class", draw(N, DIM), [2] * N, 4),
    ("singles", draw(N, DIM), list(range(N)), N),
]
PLAIN, UNEVEN, ONE, SINGLES = range(4)


def close(n=N):
    """A plain batch whose classes are so near that miners find some pairs but not all."""
    x = draw(n, DIM) * 0.5
    for i in range(n):
        x[i, i // 4] += 1.5
    return torch.round(x * 64) / 64


BATCHES.append(("close", close(), BATCHES[0][2], 4))
CLOSE = 4
TUPLES = [None]
for batch, miner in ((CLOSE, miners.MultiSimilarityMiner()), (CLOSE, miners.TripletMarginMiner(type_of_triplets="semihard")),
                     (UNEVEN, miners.MultiSimilarityMiner()), (UNEVEN, miners.BatchHardMiner())):
    TUPLES.append(miner(BATCHES[batch][1], torch.tensor(BATCHES[batch][2])))
TUPLES.append(tuple(torch.zeros(0, dtype=torch.long) for _ in range(4)))
TUPLES.append((torch.tensor([0, 0, 0, 3, 3]), torch.tensor([1, 1, 2, 0, 0]), torch.tensor([5, 5, 6, 9, 9])))  # repeats
ALL, PAIRS, TRIPLETS, PAIRS_UNEVEN, TRIPLETS_UNEVEN, EMPTY, REPEATS = range(7)

cases, sequences = [], []


def numbers(x):
    return [float(v) for v in x.detach().flatten()]


def run(loss, x, labels, tuples):
    x = x.clone().requires_grad_(True)
    parameters = [p for p in loss.parameters()] if isinstance(loss, torch.nn.Module) else []
    for p in parameters:
        p.grad = None
    value = loss(x, labels, tuples) if tuples is not None else loss(x, labels)
    value.backward()
    return float(value.detach()), x.grad if x.grad is not None else torch.zeros_like(x), [p.grad for p in parameters]


def rows(p):
    """Class weights stand in columns there, in rows here."""
    return p.t() if p.dim() == 2 and p.shape[0] == DIM else p


def add(name, kind, make, options="", batches=((PLAIN, ALL),), weight=None, prepare=None):
    """make(classes) gives the reference. options: C statements on lk_loss_options *o. prepare: applied to embeddings."""
    for batch, tuples in batches:
        title, x, labels, classes = BATCHES[batch]
        loss = make(classes)
        parameters = [p for p in loss.parameters()] if isinstance(loss, torch.nn.Module) else []
        for p in parameters:
            p.data = draw(*p.shape) if weight is None else torch.full(p.shape, weight, dtype=F64)
        call = loss if prepare is None else lambda e, *rest: loss(prepare(e), *rest)
        for p in parameters:
            p.grad = None
        value, grad, _ = run(call, x, torch.tensor(labels), TUPLES[tuples])
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        cases.append(dict(name=f"{name}, {title}" + (f", tuples {tuples}" if tuples else ""), kind=kind,
                          options=options.replace("CLASSES", str(classes)), batch=batch, tuples=tuples, value=value,
                          grad=numbers(grad), parameters=sum((numbers(rows(p)) for p in parameters), []),
                          grad_parameters=sum((numbers(rows(g)) for g in grads), [])))
        assert all(math.isfinite(v) for v in cases[-1]["grad"] + cases[-1]["grad_parameters"] + [value]), cases[-1]["name"]


MOST = ((PLAIN, ALL), (UNEVEN, ALL), (ONE, ALL), (SINGLES, ALL), (CLOSE, PAIRS), (CLOSE, TRIPLETS), (UNEVEN, PAIRS_UNEVEN),
        (UNEVEN, TRIPLETS_UNEVEN), (PLAIN, EMPTY), (PLAIN, REPEATS))
SOME = ((CLOSE, ALL), (UNEVEN, ALL))
L2, SQUARED = distances.LpDistance, lambda **k: distances.LpDistance(power=2, **k)
DOT, COSINE = distances.DotProductSimilarity, distances.CosineSimilarity


def set_distance(kind, raw=False):
    return f"o->distance.kind = LK_DISTANCE_{kind};" + (" o->distance.raw = true;" if raw else "")


def add_pair_losses():
    add("contrastive", "CONTRASTIVE", lambda c: losses.ContrastiveLoss(), batches=MOST)
    add("contrastive margins", "CONTRASTIVE", lambda c: losses.ContrastiveLoss(0.3, 1.2),
        "o->positive_margin = 0.3; o->negative_margin = 1.2;", SOME)
    add("contrastive squared", "CONTRASTIVE", lambda c: losses.ContrastiveLoss(0.1, 0.9, distance=SQUARED()),
        "o->positive_margin = 0.1; o->negative_margin = 0.9;" + set_distance("SQUARED_L2"), SOME)
    add("contrastive cosine", "CONTRASTIVE", lambda c: losses.ContrastiveLoss(1, 0, distance=COSINE()),
        "o->positive_margin = 1; o->negative_margin = 0;" + set_distance("COSINE"), SOME)
    add("contrastive raw", "CONTRASTIVE", lambda c: losses.ContrastiveLoss(0, 3, distance=L2(normalize_embeddings=False)),
        "o->negative_margin = 3;" + set_distance("L2", True), SOME)
    add("contrastive raw squared", "CONTRASTIVE",
        lambda c: losses.ContrastiveLoss(0, 6, distance=SQUARED(normalize_embeddings=False)),
        "o->negative_margin = 6;" + set_distance("SQUARED_L2", True), SOME)
    add("contrastive raw product", "CONTRASTIVE",
        lambda c: losses.ContrastiveLoss(4, 0, distance=DOT(normalize_embeddings=False)),
        "o->positive_margin = 4;  o->negative_margin = 0;" + set_distance("INNER_PRODUCT", True), SOME)
    add("triplet", "TRIPLET", lambda c: losses.TripletMarginLoss(), batches=MOST)
    add("triplet swap", "TRIPLET", lambda c: losses.TripletMarginLoss(0.2, swap=True), "o->margin = 0.2; o->swap = true;", SOME)
    add("triplet cosine", "TRIPLET", lambda c: losses.TripletMarginLoss(0.2, distance=COSINE()),
        "o->margin = 0.2;" + set_distance("COSINE"), SOME)
    add("triplet smooth", "TRIPLET", lambda c: losses.TripletMarginLoss(0.1, smooth_loss=True),
        "o->margin = 0.1; o->form = LK_TRIPLET_SMOOTH;", SOME)
    add("triplet soft margin", "TRIPLET", lambda c: losses.TripletMarginLoss(0, smooth_loss=True),
        "o->form = LK_TRIPLET_SOFT_MARGIN;", SOME)
    add("n-pairs", "N_PAIRS", lambda c: losses.NPairsLoss(), batches=((PLAIN, ALL), (UNEVEN, ALL), (CLOSE, PAIRS), (SINGLES, ALL)))
    add("n-pairs raw", "N_PAIRS", lambda c: losses.NPairsLoss(distance=DOT(normalize_embeddings=False)),
        set_distance("INNER_PRODUCT", True))
    add("tuplet margin", "TUPLET_MARGIN", lambda c: losses.TupletMarginLoss(),
        batches=((PLAIN, ALL), (CLOSE, PAIRS), (ONE, ALL), (CLOSE, TRIPLETS), (PLAIN, REPEATS)))
    add("multi-similarity", "MULTI_SIMILARITY", lambda c: losses.MultiSimilarityLoss(), batches=MOST)
    add("multi-similarity squared", "MULTI_SIMILARITY", lambda c: losses.MultiSimilarityLoss(3, 10, 0.7, distance=SQUARED()),
        "o->alpha = 3; o->beta = 10; o->base = 0.7;" + set_distance("SQUARED_L2"), SOME)
    add("circle", "CIRCLE", lambda c: losses.CircleLoss(), batches=MOST)
    add("circle faces", "CIRCLE", lambda c: losses.CircleLoss(0.25, 256), "o->margin = 0.25; o->scale = 256;", SOME)
    add("lifted", "LIFTED", lambda c: losses.LiftedStructureLoss(), batches=MOST)
    add("generalised lifted", "GENERALISED_LIFTED", lambda c: losses.GeneralizedLiftedStructureLoss(), batches=MOST)
    add("nt-xent", "NT_XENT", lambda c: losses.NTXentLoss(), batches=MOST)
    add("nt-xent l2", "NT_XENT", lambda c: losses.NTXentLoss(0.5, distance=L2()), "o->temperature = 0.5;" + set_distance("L2"), SOME)
    add("supcon", "SUPCON", lambda c: losses.SupConLoss(), batches=MOST)
    # The average over all anchors keeps those without positives there, as zeros.
    add("angular", "ANGULAR", lambda c: losses.AngularLoss(), prepare=torch.nn.functional.normalize,
        batches=((PLAIN, ALL), (UNEVEN, ALL), (ONE, ALL), (SINGLES, ALL), (CLOSE, PAIRS)))
    add("fast-ap", "FAST_AP", lambda c: losses.FastAPLoss(), batches=((PLAIN, ALL), (UNEVEN, ALL), (ONE, ALL), (SINGLES, ALL),
                                                                  (CLOSE, PAIRS), (CLOSE, TRIPLETS)))
    add("fast-ap l2", "FAST_AP", lambda c: losses.FastAPLoss(5, distance=L2()), "o->bins = 5;" + set_distance("L2"))
    add("smooth-ap", "SMOOTH_AP", lambda c: losses.SmoothAPLoss(), batches=((PLAIN, ALL), (CLOSE, PAIRS)))
    add("smooth-ap soft", "SMOOTH_AP", lambda c: losses.SmoothAPLoss(0.1), "o->temperature = 0.1;", ((CLOSE, ALL),))


def add_margin_losses():
    add("margin", "MARGIN", lambda c: losses.MarginLoss(), batches=MOST)
    add("margin learnt", "MARGIN", lambda c: losses.MarginLoss(learn_beta=True, nu=0.1, beta=1.25),
        "o->learn_beta = true; o->nu = 0.1; o->beta = 1.25;", MOST, weight=1.25)
    add("margin per class", "MARGIN", lambda c: losses.MarginLoss(learn_beta=True, nu=0.1, beta=1.25, num_classes=c),
        "o->learn_beta = o->beta_per_class = true; o->nu = 0.1; o->beta = 1.25; o->classes = CLASSES;", SOME, weight=1.25)


WEIGHTED = ((PLAIN, ALL), (UNEVEN, ALL), (CLOSE, PAIRS), (CLOSE, TRIPLETS), (ONE, ALL))


def add_class_losses():
    for name, kind, make in (
            ("normalised softmax", "NORMALISED_SOFTMAX", lambda c: losses.NormalizedSoftmaxLoss(c, DIM)),
            ("arcface", "ARCFACE", lambda c: losses.ArcFaceLoss(c, DIM)),
            ("cosface", "COSFACE", lambda c: losses.CosFaceLoss(c, DIM)),
            ("sphereface", "SPHEREFACE", lambda c: losses.SphereFaceLoss(c, DIM)),
            ("sub-center arcface", "SUBCENTER_ARCFACE",
             lambda c: losses.SubCenterArcFaceLoss(num_classes=c, embedding_size=DIM)),
            ("proxy-nca", "PROXY_NCA", lambda c: losses.ProxyNCALoss(c, DIM)),
            ("proxy-anchor", "PROXY_ANCHOR", lambda c: losses.ProxyAnchorLoss(c, DIM))):
        add(name, kind, make, "o->classes = CLASSES;", WEIGHTED)
    add("arcface narrow", "ARCFACE", lambda c: losses.ArcFaceLoss(c, DIM, margin=math.degrees(1.2), scale=10),
        "o->classes = CLASSES; o->margin = 1.2; o->scale = 10;")
    add("sphereface 3", "SPHEREFACE", lambda c: losses.SphereFaceLoss(c, DIM, margin=3, scale=2),
        "o->classes = CLASSES; o->margin = 3; o->scale = 2;")
    add("proxy-nca sharp", "PROXY_NCA", lambda c: losses.ProxyNCALoss(c, DIM, softmax_scale=9),
        "o->classes = CLASSES; o->scale = 9;")
    from oml.losses import arcface
    class OpenArcFace(torch.nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.loss = arcface.ArcFaceLoss(DIM, classes, m=0.4, s=32)

        def forward(self, x, labels):
            return self.loss(x, labels)
    add("arcface of oml", "ARCFACE", OpenArcFace, "o->classes = CLASSES; o->margin = 0.4; o->scale = 32;")
    add("curricular", "CURRICULAR", Curricular, "o->classes = CLASSES;", ((PLAIN, ALL), (UNEVEN, ALL)))


class Curricular(torch.nn.Module):
    """Huang et al. (2020), equations 4 to 8 with the published momentum."""

    def __init__(self, classes, m=0.5, s=64):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(classes, DIM, dtype=F64))
        self.m, self.s, self.t = m, s, 0.0

    def forward(self, x, labels):
        unit = torch.nn.functional.normalize
        c = (unit(x) @ unit(self.weight).t()).clamp(-1, 1)
        target = c[torch.arange(len(x)), labels]
        shifted = torch.cos(torch.acos(target) + self.m)
        own = torch.where(torch.acos(target) <= math.pi - self.m, shifted, target - self.m * math.sin(self.m))
        self.t = 0.01 * float(target.detach().mean()) + 0.99 * self.t
        logits = torch.where(c > shifted[:, None], c * (self.t + c), c)
        logits = torch.where(torch.nn.functional.one_hot(labels, c.shape[1]).bool(), own[:, None], logits)
        return torch.nn.functional.cross_entropy(self.s * logits, labels)


def n_tuple(x, labels, tuples=None):
    """Sohn (2016), equation 5, on cosines times 16: mean over all positive pairs."""
    x = torch.nn.functional.normalize(x)
    c, out = 16 * x @ x.t(), []
    for i, j in itertools.permutations(range(len(x)), 2):
        if labels[i] == labels[j]:
            out.append(torch.log(1 + torch.exp(c[i][labels != labels[i]] - c[i, j]).sum()))
    return torch.stack(out).mean()


def triplet_of_oml(x, labels, tuples=None):
    from oml.losses.triplet import TripletLossWithMiner
    from oml.miners.inbatch_all_tri import AllTripletsMiner
    return TripletLossWithMiner(margin=None, miner=AllTripletsMiner())(torch.nn.functional.normalize(x), labels)


def add_formulas():
    add("n-tuple", "N_TUPLE", lambda c: n_tuple, batches=((PLAIN, ALL), (UNEVEN, ALL)))
    add("soft triplet of oml", "TRIPLET", lambda c: triplet_of_oml,
        "o->form = LK_TRIPLET_SOFT_MARGIN; o->reducer = LK_REDUCE_MEAN;", ((PLAIN, ALL),))


# ---- Several labels per picture -----------------------------------------------------------------------------------------

SETS = [sorted(set(int(v) for v in torch.randint(0, 6, (1 + i % 3,), generator=generator))) if i != 13 else [] for i in range(N)]


def jaccard(a, b):
    a, b = set(a), set(b)
    return len(a & b) / len(a | b) if a | b else 0.0


SIMILARITY = torch.tensor([[jaccard(a, b) for b in SETS] for a in SETS], dtype=F64)
OFF = ~torch.eye(N, dtype=torch.bool)


def mean_above_zero(x):
    return x[x > 0].mean() if (x > 0).any() else x.sum() * 0


def soft_contrastive(x, *_):
    x = torch.nn.functional.normalize(x)
    d = torch.sqrt(((x[:, None] - x[None]) ** 2).sum(2) + torch.eye(N, dtype=F64))
    return (mean_above_zero((SIMILARITY * d)[OFF]) + mean_above_zero(((1 - SIMILARITY) * torch.relu(1 - d))[OFF]))


def soft_multi_similarity(x, *_):
    x = torch.nn.functional.normalize(x)
    c = x @ x.t()
    pos = torch.log(1 + (SIMILARITY * torch.exp(-2 * (c - 0.5)) * OFF).sum(1)) / 2
    neg = torch.log(1 + ((1 - SIMILARITY) * torch.exp(50 * (c - 0.5)) * OFF).sum(1)) / 50
    return (pos + neg).mean()


def soft_supcon(x, *_):
    x = torch.nn.functional.normalize(x)
    z = 10 * x @ x.t()
    total = torch.log((torch.exp(z) * OFF).sum(1))
    pos = SIMILARITY * OFF
    loss = -(pos * (z - total[:, None])).sum(1) / pos.sum(1).clamp(min=1e-300)
    return mean_above_zero(loss)


def soft_nt_xent(x, *_):
    x = torch.nn.functional.normalize(x)
    e = torch.exp(x @ x.t() / 0.5)
    away = ((1 - SIMILARITY) * e * OFF).sum(1)
    pairs = (SIMILARITY > 0) & OFF
    return (-SIMILARITY * torch.log(e / (e + away[:, None])))[pairs].mean()


def soft_circle(x, *_):
    x = torch.nn.functional.normalize(x)
    c = x @ x.t()
    near = torch.exp(-20 * torch.relu(1.4 - c.detach()) * (c - 0.6)) * SIMILARITY * OFF
    far = torch.exp(20 * torch.relu(c.detach() + 0.4) * (c - 0.4)) * (1 - SIMILARITY) * OFF
    both = ((SIMILARITY > 0) & OFF).any(1)
    return mean_above_zero(torch.log(1 + near.sum(1) * far.sum(1))[both])


def threshold(loss):
    pos, neg = torch.where((SIMILARITY >= 0.4) & OFF), torch.where((SIMILARITY <= 0.1) & OFF)
    return lambda x, *_: loss(x, None, (*pos, *neg))


def add_multi():
    rule = "o->rule.soft = true;"
    limits = "o->rule.positive = 0.4; o->rule.negative = 0.1;"
    for name, kind, loss, options in (
            ("soft contrastive", "CONTRASTIVE", soft_contrastive, rule),
            ("soft multi-similarity", "MULTI_SIMILARITY", soft_multi_similarity, rule),
            ("soft supcon", "SUPCON", soft_supcon, rule),
            ("soft nt-xent", "NT_XENT", soft_nt_xent, rule + " o->temperature = 0.5;"),
            ("soft circle", "CIRCLE", soft_circle, rule + " o->scale = 20;"),
            ("threshold contrastive", "CONTRASTIVE", threshold(losses.ContrastiveLoss()), limits),
            ("threshold multi-similarity", "MULTI_SIMILARITY", threshold(losses.MultiSimilarityLoss()), limits),
            ("threshold triplet", "TRIPLET", threshold(losses.TripletMarginLoss()), limits)):
        before = len(cases)
        add(name, kind, lambda c, loss=loss: loss, options, ((CLOSE, ALL),))
        cases[before].update(name=name, multi=True)


# ---- Cross-batch memory: the third of three batches --------------------------------------------------------------------

def add_memory():
    size, memory = 6, 14  # wraps round
    stream, labels = close(18), torch.tensor([0, 1, 0, 2, 1, 3, 2, 0, 1, 1, 3, 3, 0, 0, 1, 2, 2, 2])
    plain = lambda x: x
    for name, kind, loss, prepare, miner in (
            ("contrastive", "CONTRASTIVE", losses.ContrastiveLoss(), plain, None),
            ("triplet", "TRIPLET", losses.TripletMarginLoss(), plain, None),
            ("multi-similarity", "MULTI_SIMILARITY", losses.MultiSimilarityLoss(), plain, None),
            ("nt-xent", "NT_XENT", losses.NTXentLoss(), plain, None),
            ("supcon", "SUPCON", losses.SupConLoss(), plain, None),
            ("circle", "CIRCLE", losses.CircleLoss(), plain, None),
            ("generalised lifted", "GENERALISED_LIFTED", losses.GeneralizedLiftedStructureLoss(), plain, None),
            ("margin", "MARGIN", losses.MarginLoss(), plain, None),
            ("angular", "ANGULAR", losses.AngularLoss(), torch.nn.functional.normalize, None),
            ("mined multi-similarity", "MULTI_SIMILARITY", losses.MultiSimilarityLoss(), plain, "MULTI_SIMILARITY"),
            ("mined contrastive", "CONTRASTIVE", losses.ContrastiveLoss(), plain, "PAIR_MARGIN"),
            ("mined margin", "MARGIN", losses.MarginLoss(), plain, "SEMI_HARD")):
        mine = {None: None, "MULTI_SIMILARITY": miners.MultiSimilarityMiner(), "PAIR_MARGIN": miners.PairMarginMiner(),
                "SEMI_HARD": miners.TripletMarginMiner(type_of_triplets="semihard")}[miner]
        wrapped, values, grads = losses.CrossBatchMemory(loss, DIM, memory, miner=mine), [], []
        for b in range(3):
            part = slice(b * size, (b + 1) * size)
            value, grad, _ = run(lambda e, *r: wrapped(prepare(e), *r), stream[part], labels[part], None)
            values.append(value)
            grads += numbers(grad)
        sequences.append(dict(name=name, kind=kind, miner=miner or "ALL", values=values, grad=grads))
    return size, memory, stream, labels


def form(v):
    text = f"{v:.7g}"
    return (text if "." in text or "e" in text else text + ".0") + "f"


def array(kind, name, values, how):
    if not values:
        return ""
    return f"static const {kind} {name}[] = {{{','.join(how(v) for v in values)}}};\n"


def main():
    add_pair_losses(), add_margin_losses(), add_class_losses(), add_formulas(), add_multi()
    size, memory, stream, stream_labels = add_memory()
    out = ["/* Made by tools/reference/losses.py: do not edit. */\n#include <likeness/metric.h>\n\n",
           f"enum {{ FIXTURE_N = {N}, FIXTURE_DIM = {DIM}, STREAM_BATCH = {size}, STREAM_MEMORY = {memory} }};\n"]
    for i, (_, x, labels, _) in enumerate(BATCHES):
        out += [array("float", f"x{i}", numbers(x), form), array("int32_t", f"labels{i}", labels, str)]
    for i, t in enumerate(TUPLES[1:], 1):
        for k, part in zip("apbn", (t[0], t[1], t[2], t[3]) if len(t) == 4 else (t[0], t[1], [], t[2])):
            out.append(array("uint32_t", f"t{i}{k}", [int(v) for v in part] or ([0] if k != "b" or len(t) == 4 else []), str))
    out.append("static const struct { bool triplets; size_t positives, negatives; const uint32_t *a, *p, *b, *n; } "
               "fixture_tuples[] = {{0},\n")
    for i, t in enumerate(TUPLES[1:], 1):
        triplets = len(t) == 3
        out.append(f"    {{{str(triplets).lower()}, {len(t[1])}, {len(t[-1])}, t{i}a, t{i}p, "
                   f"{'NULL' if triplets else f't{i}b'}, t{i}n}},\n")
    out.append("};\nstatic const float *const fixture_x[] = {" + ", ".join(f"x{i}" for i in range(len(BATCHES))) + "};\n")
    out.append("static const int32_t *const fixture_y[] = {" + ", ".join(f"labels{i}" for i in range(len(BATCHES))) + "};\n")
    at = list(itertools.accumulate((len(s) for s in SETS), initial=0))
    out += [array("uint32_t", "fixture_set_at", at, str), array("int32_t", "fixture_sets", sum(SETS, []), str)]
    shared, rows_ = {}, []
    for i, c in enumerate(cases):
        names = []
        for key in ("grad", "parameters", "grad_parameters"):
            values = c[key]
            text = array("float", "@", values, form)
            if values and not any(values):
                names.append("zeros")
            elif text and text not in shared:
                shared[text] = f"{key[0] if key != 'grad_parameters' else 'q'}{i}"
                out.append(text.replace("@", shared[text]))
                names.append(shared[text])
            else:
                names.append(shared[text] if text else "NULL")
        setter = f"set{i}" if c["options"] else "NULL"
        if c["options"]:
            out.append(f"static void set{i}(lk_loss_options *o) {{ {c['options']} }}\n")
        rows_.append(f"    {{\"{c['name']}\", LK_LOSS_{c['kind']}, {setter}, {c['batch']}, {c['tuples']}, "
                     f"{str(c.get('multi', False)).lower()}, {c['value']!r}, {', '.join(names)}, {len(c['parameters'])}}},\n")
    out.insert(2, f"static const float zeros[{max(N * DIM, 64 * DIM)}] = {{0}};\n")
    out.append("static const struct fixture_case {\n    const char *name;\n    lk_loss_kind kind;\n    void (*set)(lk_loss_options *);\n"
               "    int batch, tuples;\n    bool multi;\n    double value;\n    const float *grad, *parameters, *grad_parameters;\n"
               "    size_t count;\n} fixture_cases[] = {\n" + "".join(rows_) + "};\n")
    out += [array("float", "stream_x", numbers(stream), form), array("int32_t", "stream_y", stream_labels.tolist(), str)]
    for i, s in enumerate(sequences):
        out.append(array("float", f"stream_g{i}", s["grad"], form))
    out.append("static const struct { const char *name; lk_loss_kind kind; lk_miner_kind miner; double values[3]; const float *grad; } "
               "fixture_streams[] = {\n" +
               "".join(f"    {{\"{s['name']}\", LK_LOSS_{s['kind']}, LK_MINER_{s['miner']}, {{{', '.join(map(repr, s['values']))}}}, stream_g{i}}},\n"
                       for i, s in enumerate(sequences)) + "};\n")
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    os.makedirs(os.path.join(root, "tests", "fixtures"), exist_ok=True)
    with open(os.path.join(root, "tests", "fixtures", "losses.h"), "w") as file:
        file.write("".join(out))


if __name__ == "__main__":
    torch.set_default_dtype(F64)
    main()
