"""The ranking functions of liblikeness for Python, as far as the scripts of this folder need them."""
import ctypes
import json
import os

import numpy

QUERY = 2**64 - 1
HIT = numpy.dtype([("id", "<u8"), ("score", "<f4")], align=True)
ROW = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_float))


class KReciprocal(ctypes.Structure):
    _fields_ = [("k1", ctypes.c_uint32), ("k2", ctypes.c_uint32), ("lambda_", ctypes.c_float)]


class Diffusion(ctypes.Structure):
    _fields_ = [("k", ctypes.c_uint32), ("kq", ctypes.c_uint32), ("gamma", ctypes.c_float), ("alpha", ctypes.c_float),
                ("iterations", ctypes.c_uint32), ("tolerance", ctypes.c_float)]


class SuperGlobal(ctypes.Structure):
    _fields_ = [("k", ctypes.c_uint32), ("beta", ctypes.c_float)]


class Rocchio(ctypes.Structure):
    _fields_ = [("alpha", ctypes.c_float), ("beta", ctypes.c_float), ("gamma", ctypes.c_float)]


class Shortlist(ctypes.Structure):
    _fields_ = [("count", ctypes.c_size_t), ("ids", ctypes.c_void_p), ("distances", ctypes.c_void_p),
                ("farthest", ctypes.c_float), ("self", ctypes.c_uint64)]


class Source(ctypes.Structure):
    _fields_ = [("neighbours", ctypes.c_void_p), ("distance", ctypes.c_void_p), ("user", ctypes.c_void_p)]


class Indexed(ctypes.Structure):
    _fields_ = [("knn", ctypes.c_void_p), ("index", ctypes.c_void_p), ("query", ctypes.c_void_p)]


class Record(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int64), ("path", ctypes.c_char_p), ("size", ctypes.c_uint64), ("mtime_ns", ctypes.c_int64),
                ("hash", ctypes.c_uint64 * 2), ("width", ctypes.c_uint32), ("height", ctypes.c_uint32), ("labels", ctypes.c_char_p),
                ("label", ctypes.c_char_p), ("state", ctypes.c_int), ("error", ctypes.c_char_p)]


EACH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Record))


class ContextOptions(ctypes.Structure):
    _fields_ = [("threads", ctypes.c_int), ("log_level", ctypes.c_int), ("log", ctypes.c_void_p), ("log_user", ctypes.c_void_p),
                ("progress", ctypes.c_void_p), ("progress_user", ctypes.c_void_p)]


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def f32(array):
    return numpy.ascontiguousarray(array, numpy.float32)


class Library:
    def __init__(self, build, threads=0):
        self.c = ctypes.CDLL(os.path.join(build, "liblikeness.so"))
        self.c.lk_error_message.restype = ctypes.c_char_p
        self.c.lk_source_of_index.restype = Source
        self.context = ctypes.c_void_p()
        self.check(self.c.lk_context_new(ctypes.byref(ContextOptions(threads=threads)), ctypes.byref(self.context)))

    def check(self, status):
        if status:
            raise RuntimeError(self.c.lk_error_message().decode())

    def full(self, vectors, queries, k1=20, k2=6, weight=0.3):
        """Distances [queries][n - queries], or [n][n] when all are queries."""
        vectors = f32(vectors)
        n, dim = vectors.shape
        width = n - queries if queries < n else n
        out = numpy.empty((queries, width), numpy.float32)

        def row(_, query, values):
            ctypes.memmove(out[query].ctypes.data, values, 4 * width)
            return 0
        self.check(self.c.lk_kreciprocal_full(self.context, ctypes.byref(KReciprocal(k1, k2, weight)), ctypes.c_size_t(n),
                                              ctypes.c_size_t(queries), ctypes.c_size_t(dim), pointer(vectors), ROW(row), None))
        return out

    def knn(self, vectors, k, cache=None):
        vectors = f32(vectors)
        out, version = ctypes.c_void_p(), ctypes.c_uint64()
        if cache and os.path.exists(cache):
            self.check(self.c.lk_knn_open(cache.encode(), ctypes.byref(out), ctypes.byref(version)))
            self.c.lk_knn_count.restype = ctypes.c_size_t
            if self.c.lk_knn_count(out) == len(vectors):
                return out
            self.knn_free(out)
        self.check(self.c.lk_knn_new(self.context, ctypes.c_size_t(len(vectors)), ctypes.c_size_t(vectors.shape[1]), None,
                                     pointer(vectors), ctypes.c_size_t(k), ctypes.byref(out)))
        if cache:
            self.check(self.c.lk_knn_save(out, cache.encode(), ctypes.c_uint64(0)))
        return out

    def knn_from_lists(self, neighbours, distances, farthest):
        out = ctypes.c_void_p()
        n, k = neighbours.shape
        self.check(self.c.lk_knn_from_lists(ctypes.c_size_t(n), None, ctypes.c_size_t(k), pointer(neighbours), pointer(distances),
                                            pointer(farthest), ctypes.byref(out)))
        return out

    def knn_lists(self, knn, n, k):
        """Positions and distances of every item's k nearest."""
        hits, count, farthest = numpy.empty(k, HIT), ctypes.c_size_t(), ctypes.c_float()
        ids, distances = numpy.empty((n, k), numpy.int64), numpy.empty((n, k), numpy.float32)
        for i in range(n):
            self.check(self.c.lk_knn_neighbours(knn, ctypes.c_uint64(i), ctypes.c_size_t(k), pointer(hits), ctypes.byref(count),
                                                ctypes.byref(farthest)))
            ids[i], distances[i] = hits["id"], hits["score"]
        return ids, distances

    def knn_free(self, knn):
        self.c.lk_knn_free(knn)

    def flat(self, vectors):
        """An exact index by cosine; ids are positions."""
        out = self.flat_of(vectors.shape[1])
        self.flat_add(out, numpy.arange(len(vectors), dtype=numpy.uint64), vectors)
        return out

    def flat_of(self, dim, dtype=0):
        """An empty one; dtype 0 f32, 1 f16, 2 int8."""
        out = ctypes.c_void_p()
        self.check(self.c.lk_flat_new(ctypes.c_size_t(dim), 0, dtype, ctypes.byref(out)))
        return out

    def flat_add(self, index, ids, vectors):
        vectors = f32(vectors)
        self.check(self.c.lk_flat_add(index, ctypes.c_size_t(len(vectors)), pointer(ids), pointer(vectors)))

    def source(self, knn, index=None, query=None):
        """Neighbours from the table; distances from the index, if there is one."""
        if index is None:
            return Source(ctypes.cast(self.c.lk_knn_neighbours, ctypes.c_void_p), None, knn)
        query = f32(query)
        indexed = Indexed(knn, index, query.ctypes.data)
        out = self.c.lk_source_of_index(ctypes.byref(indexed))
        out.keep = (indexed, query)
        return out

    def shortlist(self, ids, distances, farthest=0.0, itself=QUERY):
        """Keeps references to the arrays, which C borrows."""
        ids, distances = numpy.ascontiguousarray(ids, numpy.uint64), f32(distances)
        out = Shortlist(len(ids), ids.ctypes.data, distances.ctypes.data, farthest, itself)
        out.keep = (ids, distances)
        return out

    def local(self, shortlist, source, k1=20, k2=6, weight=0.3):
        out = numpy.empty(shortlist.count, numpy.float32)
        self.check(self.c.lk_kreciprocal_rerank(ctypes.byref(KReciprocal(k1, k2, weight)), ctypes.byref(shortlist),
                                                ctypes.byref(source), pointer(out)))
        return out

    def diffusion(self, shortlist, source, k=50, kq=10, gamma=3.0, alpha=0.99):
        out = numpy.empty(shortlist.count, numpy.float32)
        self.check(self.c.lk_diffusion_rerank(ctypes.byref(Diffusion(k, kq, gamma, alpha, 20, 1e-6)), ctypes.byref(shortlist),
                                              ctypes.byref(source), pointer(out)))
        return out

    def superglobal(self, query, vectors, k=9, beta=0.15):
        query, vectors = f32(query), f32(vectors)
        out = numpy.empty(len(vectors), numpy.float32)
        self.check(self.c.lk_superglobal_rerank(ctypes.byref(SuperGlobal(k, beta)), ctypes.c_size_t(len(query)), pointer(query),
                                                ctypes.c_size_t(len(vectors)), pointer(vectors), pointer(out)))
        return out

    def expand(self, kind, query, near, alpha=3.0):
        query, near = f32(query), f32(near)
        similarities, out = f32(near @ query), numpy.empty(len(query), numpy.float32)
        self.check(self.c.lk_expand_query({"aqe": 1, "rank": 2, "alpha": 3}[kind], ctypes.c_float(alpha), ctypes.c_size_t(len(query)),
                                          pointer(query), ctypes.c_size_t(len(near)), pointer(near), pointer(similarities), pointer(out)))
        return out

    def feedback(self, query, yes, no, weights=(1.0, 0.75, 0.15)):
        query, yes, no = f32(query), f32(yes), f32(no)
        out = numpy.empty_like(query)
        self.check(self.c.lk_feedback(Rocchio(*weights), ctypes.c_size_t(len(query)), pointer(query), ctypes.c_size_t(len(yes)), pointer(yes),
                                      ctypes.c_size_t(len(no)), pointer(no), pointer(out)))
        return out

    def augment(self, kind, vectors, k, alpha=3.0):
        vectors = f32(vectors)
        out = numpy.empty_like(vectors)
        self.check(self.c.lk_augment(self.context, {"aqe": 1, "rank": 2, "alpha": 3}[kind], ctypes.c_float(alpha), ctypes.c_size_t(k),
                                     ctypes.c_size_t(len(vectors)), ctypes.c_size_t(vectors.shape[1]), pointer(vectors), pointer(out)))
        return out

    def collection(self, path):
        """Vectors [n][dim] and labels (dictionaries, with the path) of a collection's pictures, in order of id."""
        handle, snapshot, rows = ctypes.c_void_p(), ctypes.c_void_p(), []
        self.check(self.c.lk_collection_open(path.encode(), 0, ctypes.byref(handle)))
        self.check(self.c.lk_collection_snapshot(handle, ctypes.byref(snapshot)))
        self.c.lk_snapshot_index.restype = self.c.lk_flat_dim.restype = ctypes.c_size_t
        index = ctypes.c_void_p(self.c.lk_snapshot_index(snapshot))

        def each(_, record):
            r = record.contents
            if r.state == 0:
                rows.append((r.id, {**json.loads(r.labels or b"{}"), "path": r.path.decode()}))
            return 0
        self.check(self.c.lk_collection_each(handle, ctypes.c_int64(0), EACH(each), None))
        vectors = numpy.empty((len(rows), self.c.lk_flat_dim(index)), numpy.float32)
        for i, (id, _) in enumerate(rows):
            self.check(self.c.lk_flat_vector(index, ctypes.c_uint64(id), ctypes.c_void_p(vectors[i].ctypes.data)))
        self.c.lk_snapshot_free(snapshot)
        self.c.lk_collection_close(handle)
        return vectors, [labels for _, labels in rows]
