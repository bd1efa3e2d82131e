"""What a disk holds after the power went, from a trace of file operations (trace.c).

Until a file is synced its writes are the cache's: any of them may be on the disk or not, whole or in part, in any order.
Until a folder is synced the same holds of its entries, except that those of one folder are kept in their order, as journals
of file systems do. A rename is whole or not at all.
"""
import os
import struct

O_CREAT, O_TRUNC, O_DIRECTORY = os.O_CREAT, os.O_TRUNC, os.O_DIRECTORY
HEAD = struct.Struct("<iiQQII")


def read_trace(path):
    """[(letter, descriptor, a, b, first, second)]"""
    at, events = 0, []
    with open(path, "rb") as trace:
        data = trace.read()
    while at < len(data):
        what, fd, a, b, n, m = HEAD.unpack_from(data, at)
        at += HEAD.size
        events.append((chr(what), fd, a, b, data[at:at + n], data[at + n:at + n + m]))
        at += n + m
    return events


class Node:
    """A file or folder, whatever its names are."""

    def __init__(self, folder):
        self.folder = folder
        self.operations = []  # of a file: (number, "write"|"cut", offset, bytes); of a folder: (number, {name: Node or None}, ...)
        self.synced = -1      # number of the event up to which everything is on the disk


class Disk:
    """The operations below `root` as they were asked for, each with the number of its event."""

    def __init__(self, root, events):
        self.root_path, self.root = os.path.realpath(root), Node(True)
        self.open, self.syncs, self.steps = {}, [], []
        for number, event in enumerate(events):
            self.take(number, *event)

    # ---- taking up the trace ----

    def names(self, path):
        path = os.path.normpath(path.decode())
        if path == self.root_path:
            return []
        return path[len(self.root_path) + 1:].split("/") if path.startswith(self.root_path + "/") else None

    def find(self, names):
        """The node now, as if nothing were ever lost."""
        node = self.root
        for name in names:
            node = self.entries(node).get(name)
            if node is None:
                return None
        return node

    @staticmethod
    def entries(folder, numbers=None):
        """Entries of a folder after the operations in `numbers` (None = all)."""
        entries = {}
        for number, changes in folder.operations:
            if numbers is None or number in numbers:
                entries.update(changes)
        return {name: node for name, node in entries.items() if node}

    def change(self, number, names, node):
        """An entry of its folder becomes node (None: goes)."""
        folder = self.find(names[:-1])
        folder.operations.append((number, {names[-1]: node}))
        self.steps.append(number)

    def take(self, number, what, fd, a, b, first, second):
        if what in "oTumr":
            names = self.names(first)
            if names is None:
                if what == "o":
                    self.open.pop(fd, None)
                return
        if what == "o":
            node = self.find(names)
            if node is None and a & O_CREAT:
                node = Node(False)
                self.change(number, names, node)
            if node is not None:
                self.open[fd] = node
                if a & O_TRUNC and not node.folder:
                    node.operations.append((number, "cut", 0, b""))
            else:
                self.open.pop(fd, None)
        elif what == "T":
            self.find(names).operations.append((number, "cut", a, b""))
            self.steps.append(number)
        elif what == "u":
            self.change(number, names, None)
        elif what == "m":
            self.change(number, names, Node(True))
        elif what == "r":
            to, node = self.names(second), self.find(names)
            # One operation of the folder it goes to; the old name goes with it wherever it was.
            source, target = self.find(names[:-1]), self.find(to[:-1])
            if source is target:
                target.operations.append((number, {names[-1]: None, to[-1]: node}))
            else:
                target.operations.append((number, {to[-1]: node}))
                source.operations.append((number, {names[-1]: None}))
            self.steps.append(number)
        elif fd in self.open:
            node = self.open[fd]
            if what == "c":
                del self.open[fd]
            elif what == "w":
                node.operations.append((number, "write", a, first))
                self.steps.append(number)
            elif what == "t":
                node.operations.append((number, "cut", a, b""))
                self.steps.append(number)
            elif what == "s":
                self.syncs.append((number, node))
                self.steps.append(number)

    # ---- what is left ----

    def nodes(self):
        seen, todo = set(), [self.root]
        while todo:
            node = todo.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield node
            if node.folder:
                todo += [n for _, changes in node.operations for n in changes.values() if n]

    def write(self, target, end, choose):
        """Writes the disk after the events before `end` into the folder target. choose(node, pending) gives what became
        of the operations of a node that no sync covers: a list of operations, of a folder a prefix of them."""
        synced = {}
        for number, node in self.syncs:
            if number < end:
                synced[id(node)] = number
        self.emit(self.root, target, end, synced, choose)

    def emit(self, node, path, end, synced, choose):
        done = [o for o in node.operations if o[0] < end]
        durable = [o for o in done if o[0] < synced.get(id(node), -1)]
        kept = durable + choose(node, done[len(durable):])
        if not node.folder:
            content = bytearray()
            for operation in kept:
                apply(content, operation)
            with open(path, "wb") as out:
                out.write(content)
            return
        os.makedirs(path, exist_ok=True)
        for name, child in self.entries(node, {o[0] for o in kept}).items():
            self.emit(child, os.path.join(path, name), end, synced, choose)


def apply(content, operation):
    _, what, offset, data = operation
    if what == "cut":
        del content[offset:]
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if what == "write":
        content[offset:offset + len(data)] = data


# ---- what the cache may have written ----

def everything(node, pending):
    return pending


def nothing(node, pending):
    return []


def names_alone(node, pending):
    """Entries are there, contents are not: files of their full length whose unsynced part is zero."""
    if node.folder:
        return pending
    return [(n, what, offset, bytes(len(data))) for n, what, offset, data in pending]


def contents_alone(node, pending):
    return [] if node.folder else pending


def torn(sector):
    """The last write of each file ends in the middle."""
    def choose(node, pending):
        if node.folder or not pending:
            return pending
        n, what, offset, data = pending[-1]
        half = len(data) // 2 // sector * sector
        return pending[:-1] + ([(n, what, offset, data[:half])] if what == "write" and half else [])
    return choose


def scattered(sector, chance):
    """Any sectors of any writes, as a cache that reorders leaves them; a part of the entries."""
    def choose(node, pending):
        if node.folder:
            return pending[:chance.randrange(len(pending) + 1)]
        out = []
        for n, what, offset, data in pending:
            if what == "cut":
                out.append((n, what, offset, data))
                continue
            for at in range(0, len(data), sector):
                if chance.random() < 0.5:
                    out.append((n, what, offset + at, data[at:at + sector]))
        return out
    return choose
