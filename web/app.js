// The page: what is asked stands in the address (#id=7), so that back, reload and links work. A picture from outside has no
// address; its results stay until the next query.

const $ = (id) => document.getElementById(id);
const results = $("results"), status = $("status");
const state = { metric: "cosine", next: 0, ticket: 0 };

async function ask(path, options) {
  const answer = await fetch(path, options);
  const value = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(value?.error?.message ?? `the server answered ${answer.status}`);
  return value;
}

function say(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("error", bad);
}

const fileName = (path) => path.slice(path.lastIndexOf("/") + 1);
const pictureOf = (id, size) => `/api/v1/images/${id}/file?size=${size}`;

function card(image) {
  const item = $("card").content.cloneNode(true).firstElementChild;
  const link = item.querySelector("a"), picture = item.querySelector("img");
  link.href = `#id=${image.id}`;
  link.title = image.path;
  picture.src = pictureOf(image.id, 256);
  picture.addEventListener("error", () => { picture.remove(); item.querySelector(".picture").classList.add("gone"); });
  item.querySelector(".name").textContent = image.label ?? fileName(image.path);
  if (image.score !== undefined) {
    // A cosine of 0 says "unrelated": the bar shows what lies above it. Distances have no natural end and get no bar.
    item.querySelector(".score").hidden = false;
    item.querySelector(".number").textContent = image.score.toFixed(3);
    const bar = item.querySelector(".bar");
    if (state.metric === "cosine") bar.firstElementChild.style.width = `${Math.max(0, image.score) * 100}%`;
    else bar.remove();
    link.setAttribute("aria-label", `${image.label ?? fileName(image.path)}, score ${image.score.toFixed(3)}: search with it`);
  }
  return item;
}

function showQuery(source, title) {
  const preview = $("preview");
  if (preview.src.startsWith("blob:")) URL.revokeObjectURL(preview.src);
  if (source) preview.src = source;
  else preview.removeAttribute("src");
  preview.hidden = !source;
  $("hint").hidden = Boolean(source);
  $("drop").classList.toggle("full", Boolean(source));
  $("again").hidden = !source;
  $("title").textContent = title;
  document.title = source ? `${title} · Likeness` : "Likeness";
}

// Runs one query; the answer of an older one that comes late is dropped.
async function run(work) {
  const ticket = ++state.ticket;
  document.body.classList.add("busy");
  try {
    const finish = await work();
    if (ticket === state.ticket) finish();
  } catch (error) {
    if (ticket === state.ticket) {
      results.replaceChildren();
      $("more").hidden = true;
      say(`That did not work: ${error.message}`, true);
    }
  } finally {
    if (ticket === state.ticket) document.body.classList.remove("busy");
  }
}

function showResults(answer) {
  results.replaceChildren(...answer.results.map(card));
  $("more").hidden = true;
  const n = answer.results.length;
  say(n ? `${n} most similar pictures, found in ${answer.took_ms.toFixed(answer.took_ms < 10 ? 1 : 0)} ms` : "Nothing was found: the collection has no other pictures.");
}

function searchById(id) {
  return run(async () => {
    showQuery(pictureOf(id, 512), `Picture ${id}`);
    const [record, answer] = await Promise.all([ask(`/api/v1/images/${id}`), ask(`/api/v1/search?id=${id}&k=60`)]);
    return () => {
      $("title").textContent = record.label ?? fileName(record.path);
      document.title = `${$("title").textContent} · Likeness`;
      showResults(answer);
    };
  });
}

function searchByFile(file) {
  if (location.hash) history.pushState(null, "", location.pathname);
  return run(async () => {
    showQuery(URL.createObjectURL(file), file.name || "Pasted picture");
    say("Searching…");
    const answer = await ask("/api/v1/search?k=60", { method: "POST", body: file });
    return () => { showResults(answer); results.focus({ preventScroll: true }); };
  });
}

function browse(after = 0) {
  return run(async () => {
    const page = await ask(`/api/v1/images?n=60&after=${after}`);
    return () => {
      if (!after) {
        showQuery(null, "Find similar pictures");
        results.replaceChildren();
        say(page.images.length ? "Choose any picture to see what looks like it." : "The collection is empty: index some pictures first.");
      }
      results.append(...page.images.map(card));
      state.next = page.next;
      $("more").hidden = !page.next;
    };
  });
}

function route() {
  const id = /^#id=(\d+)$/.exec(location.hash)?.[1];
  return id ? searchById(id) : browse();
}

const firstPicture = (files) => [...(files ?? [])].find((file) => file.type.startsWith("image/") || /\.(svg|avif|heic|heif)$/i.test(file.name));

$("file").addEventListener("change", (event) => {
  const file = event.target.files[0];
  if (file) searchByFile(file);
  event.target.value = ""; // so that the same file can be chosen again
});
for (const kind of ["dragenter", "dragover"])
  document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const file = firstPicture(event.dataTransfer.files);
  if (file) searchByFile(file);
  else say("Drop a picture file, please: that was none.", true);
});
document.addEventListener("paste", (event) => {
  const file = firstPicture(event.clipboardData.files);
  if (file) searchByFile(file);
});
$("preview").addEventListener("error", () => { $("preview").hidden = true; }); // a format that the browser cannot show
$("again").addEventListener("click", () => { if (location.hash) location.hash = ""; else browse(); });
$("more").addEventListener("click", () => browse(state.next));
document.querySelector(".brand").addEventListener("click", (event) => { event.preventDefault(); $("again").click(); });
// The link that skips to the results changes the address too: drawing them anew would take the focus away from them.
addEventListener("hashchange", () => { if (!location.hash || location.hash.startsWith("#id=")) route(); });

// Arrow keys move through the grid as they would through a table.
results.addEventListener("keydown", (event) => {
  const cards = [...results.querySelectorAll("a")], at = cards.indexOf(document.activeElement);
  if (at < 0) return;
  const top = cards[0].getBoundingClientRect().top;
  const columns = cards.filter((c) => c.getBoundingClientRect().top === top).length || 1;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const next = event.key === "Home" ? 0 : event.key === "End" ? cards.length - 1 : step ? at + step : -1;
  if (next < 0 || next >= cards.length) return;
  event.preventDefault();
  cards[next].focus();
});

ask("/api/v1/info").then((info) => {
  state.metric = info.metric;
  $("facts").textContent = `${info.count.toLocaleString()} pictures · ${info.model}`;
}).catch(() => {}).finally(route);
