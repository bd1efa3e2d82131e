"""The libraries that people use, each behind the same face.

A peer is a function of one argument, a folder, and answers with three functions: build(vectors, threads) makes the index
and keeps it; save() writes it into the folder; search(effort) reads it from there when it was not built here and answers
with a function of one query. `efforts` lists what to measure, least first.
"""
import json
import os

K = 10
EFFORTS = [10, 14, 20, 28, 40, 56, 80, 112, 160, 226, 320, 452, 640]


class Peer:
    efforts = EFFORTS
    index = None

    def __init__(self, folder, dim):
        self.folder, self.dim = folder, dim

    def path(self, name="index"):
        return os.path.join(self.folder, name)

    def save(self):
        self.index.save(self.path())


class Faiss(Peer):
    def build(self, x, threads):
        import faiss
        faiss.omp_set_num_threads(threads)
        self.index = faiss.index_factory(self.dim, self.factory(len(x)))
        self.prepare()
        self.index.train(x[:self.sample])
        self.index.add(x)

    def prepare(self):
        pass

    def save(self):
        import faiss
        faiss.write_index(self.index, self.path())

    def load(self):
        import faiss
        self.index = faiss.read_index(self.path())

    def search(self, effort):
        import faiss
        faiss.omp_set_num_threads(1)
        self.set(effort)
        return lambda q: self.index.search(q[None], K)[1][0]


class faiss_ivf_fast_scan(Faiss):
    efforts, sample = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256], 200000

    def factory(self, rows):
        return f"IVF{1024 if rows < 600000 else 2048},PQ{self.dim // 2}x4fs,RFlat"

    def set(self, effort):
        import faiss
        self.index.k_factor = 10
        faiss.downcast_index(self.index.base_index).nprobe = effort


class faiss_hnsw(Faiss):
    sample = None

    def factory(self, rows):
        return "HNSW16"

    def prepare(self):
        self.index.hnsw.efConstruction = 200

    def set(self, effort):
        self.index.hnsw.efSearch = effort


class faiss_hnsw_sq8(faiss_hnsw):
    def factory(self, rows):
        return "HNSW16_SQ8"


class hnswlib(Peer):
    def build(self, x, threads):
        import hnswlib as library
        self.index = library.Index("l2", self.dim)
        self.index.init_index(len(x), M=16, ef_construction=200, random_seed=1)
        self.index.set_num_threads(threads)
        self.index.add_items(x)

    def save(self):
        self.index.save_index(self.path())

    def load(self):
        import hnswlib as library
        self.index = library.Index("l2", self.dim)
        self.index.load_index(self.path())

    def search(self, effort):
        self.index.set_num_threads(1)
        self.index.set_ef(effort)
        return lambda q: self.index.knn_query(q, k=K)[0][0]


class scann(Peer):
    efforts = [(2, 30), (3, 40), (5, 50), (7, 55), (10, 60), (14, 70), (20, 80), (28, 100), (40, 120), (60, 150), (80, 200),
               (110, 250), (150, 300), (220, 400), (320, 500)]

    def build(self, x, threads):
        import scann as library
        leaves = 1000 if len(x) < 600000 else 2000
        self.index = (library.scann_ops_pybind.builder(x, K, "squared_l2").set_n_training_threads(threads)
                      .tree(num_leaves=leaves, num_leaves_to_search=50, training_sample_size=200000)
                      .score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build())

    def save(self):
        os.makedirs(self.path(), exist_ok=True)
        self.index.serialize(self.path())

    def load(self):
        import scann as library
        self.index = library.scann_ops_pybind.load_searcher(self.path())

    def search(self, effort):
        leaves, reordered = effort
        return lambda q: self.index.search(q, leaves_to_search=leaves, pre_reorder_num_neighbors=reordered)[0]


class svs(Peer):
    def build(self, x, threads):
        import svs as library
        parameters = library.VamanaBuildParameters(graph_max_degree=32, window_size=128, alpha=1.2)
        self.index = library.Vamana.build(parameters, x, library.DistanceType.L2, num_threads=threads)

    def save(self):
        self.index.save(self.path("config"), self.path("graph"), self.path("data"))

    def load(self):
        import svs as library
        self.index = library.Vamana(self.path("config"), library.GraphLoader(self.path("graph")),
                                    library.VectorDataLoader(self.path("data"), library.DataType.float32),
                                    library.DistanceType.L2, num_threads=1)

    def search(self, effort):
        self.index.num_threads = 1
        self.index.search_window_size = effort
        return lambda q: self.index.search(q[None], K)[0][0]


class usearch(Peer):
    def new(self):
        from usearch.index import Index
        self.index = Index(ndim=self.dim, metric="l2sq", dtype="f32", connectivity=16, expansion_add=200, expansion_search=64)

    def build(self, x, threads):
        import numpy
        self.new()
        self.index.add(numpy.arange(len(x)), x, threads=threads)

    def load(self):
        self.new()
        self.index.load(self.path())

    def search(self, effort):
        self.index.expansion_search = effort
        return lambda q: self.index.search(q, K, threads=1).keys


class vsag(Peer):
    def new(self, threads):
        import pyvsag
        self.index = pyvsag.Index("hgraph", json.dumps({
            "dtype": "float32", "metric_type": "l2", "dim": self.dim, "index_param": {
                "base_quantization_type": "sq8_uniform", "precise_quantization_type": "fp32", "use_reorder": True,
                "max_degree": 32, "ef_construction": 200, "build_thread_count": threads}}))

    def build(self, x, threads):
        import numpy
        self.new(threads)
        self.index.build(vectors=x, ids=numpy.arange(len(x), dtype="int64"), num_elements=len(x), dim=self.dim)

    def load(self):
        self.new(1)
        self.index.load(self.path())

    def search(self, effort):
        parameters = json.dumps({"hgraph": {"ef_search": effort}})
        return lambda q: self.index.knn_search(vector=q, k=K, parameters=parameters)[0]


class nmslib(Peer):
    def new(self):
        import nmslib as library
        self.index = library.init(method="hnsw", space="l2")

    def build(self, x, threads):
        self.new()
        self.index.addDataPointBatch(x)
        self.index.createIndex({"M": 16, "efConstruction": 200, "post": 0, "indexThreadQty": threads})

    def save(self):
        self.index.saveIndex(self.path(), save_data=True)

    def load(self):
        self.new()
        self.index.loadIndex(self.path(), load_data=True)

    def search(self, effort):
        self.index.setQueryTimeParams({"efSearch": effort})
        return lambda q: self.index.knnQuery(q, k=K)[0]


PEERS = {p.__name__: p for p in (scann, faiss_ivf_fast_scan, hnswlib, faiss_hnsw, faiss_hnsw_sq8, svs, usearch, vsag, nmslib)}
