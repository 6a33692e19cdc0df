// What the pages gain with a script: answers that stream, forms that do not reload, a palette, shortcuts. Everything
// here sends the same forms and opens the same links as the pages do without it.
'use strict';
(() => {
const root = document.documentElement;
const $ = (q, el = document) => el.querySelector(q);
const $$ = (q, el = document) => [...el.querySelectorAll(q)];
root.classList.add('scripted');

const say = text => { if (text) $('#said').textContent = text; };
const nearEnd = () => innerHeight + scrollY > root.scrollHeight - 120;
const toEnd = () => scrollTo(0, root.scrollHeight);

// Turns. One EventSource per answer that is not over; it comes back by itself, from the place it had reached.
const open = new Map(); // turn -> {source, after, wait, timer}

function follow(article) {
  const turn = article.dataset.turn;
  if (open.has(turn)) return;
  const t = { after: article.dataset.seq, wait: 500 };
  open.set(turn, t);
  connect(turn, t);
}

function connect(turn, t) {
  clearTimeout(t.timer);
  t.source?.close();
  const source = t.source = new EventSource(`/turns/${turn}/events?after=${t.after}`);
  source.addEventListener('blocks', e => { alive(t, e); blocks(turn, JSON.parse(e.data)); });
  source.addEventListener('state', e => { alive(t, e); state(turn, JSON.parse(e.data)); });
  source.addEventListener('restart', () => { note(turn, 'The server is restarting. What has come is kept.'); later(turn, t); });
  source.onerror = () => { note(turn, 'The line to the server is gone; trying again. The answer goes on without it.'); later(turn, t); };
}

function alive(t, e) { t.after = e.lastEventId || t.after; t.wait = 500; }

function later(turn, t) {
  t.source.close();
  clearTimeout(t.timer);
  t.timer = setTimeout(() => article(turn) ? connect(turn, t) : open.delete(turn), t.wait);
  t.wait = Math.min(t.wait * 2, 8000);
}

function drop(turn) {
  const t = open.get(turn);
  if (!t) return;
  clearTimeout(t.timer);
  t.source.close();
  open.delete(turn);
}

const article = turn => $(`article[data-turn="${turn}"]`);

function note(turn, text) {
  const p = $('.state > span:last-child', article(turn) || document);
  if (p) p.textContent = text;
}

function blocks(turn, changes) {
  const prose = $('.prose', article(turn) || document.createElement('i'));
  if (prose) fill(prose, changes);
}

function fill(prose, changes) {
  const follows = nearEnd();
  for (const [i, html] of changes) {
    while (prose.children.length <= i) {
      const b = document.createElement('div');
      b.className = 'b';
      prose.append(b);
    }
    const before = prose.children[i], at = $('pre', before)?.scrollLeft;
    before.innerHTML = html; // sanitised by the server; the page's policy runs no script in it
    if (at) $('pre', before).scrollLeft = at;
  }
  const last = changes[changes.length - 1][0];
  while (prose.children.length > last + 1) prose.lastChild.remove();
  if (follows) toEnd();
}

function state(turn, s) {
  const a = article(turn);
  if (!a) return drop(turn);
  const follows = nearEnd();
  $('.line', a).innerHTML = s.line;
  a.dataset.state = s.state;
  say(s.says);
  a.toggleAttribute('data-running', s.running);
  if (!s.running) a.dataset.v = '';
  if (s.over) {
    drop(turn);
    a.removeAttribute('data-follow');
    if (s.state === 'interrupted') refresh(); // it was asked again beside it
  }
  begin();
  if (follows) toEnd();
}

// The send button stops while an answer of this page is under way and nothing is written.
function stopper() {
  const send = $('#send'), ask = $('#ask');
  if (!send) return;
  const stop = $('article[data-running]') && !ask.value.trim();
  send.textContent = stop ? 'Stop' : 'Send';
  send.classList.toggle('stopping', !!stop);
  ask.required = !stop;
}

async function stopAll() {
  await Promise.all($$('article[data-running]').map(a => fetch(`/turns/${a.dataset.turn}/stop`, { method: 'POST' })));
}

// Forms. The answer to a form is a page; the parts of it that differ are put in.
const channel = 'BroadcastChannel' in window ? new BroadcastChannel('chats') : null;
if (channel) channel.onmessage = e => { if (e.data === location.pathname) refresh(); };

async function submit(form, button) {
  const data = new URLSearchParams(new FormData(form, button));
  if ('choice' in form.dataset && $('#composer')) {
    data.set('chosen', '1');
    for (const [k, v] of new FormData($('#composer'))) if (['model', 'project', 'tools', 'memory', 'plan', 'plans'].includes(k)) data.set(k, v);
  }
  const response = await fetch(button?.getAttribute('formaction') || form.action, { method: 'POST', body: data });
  if (response.status === 401) { location.href = '/login'; return false; }
  await place(response);
  if (channel) channel.postMessage(location.pathname);
  return response.ok;
}

async function refresh() {
  try { await place(await fetch(location.pathname + location.search), true); } catch { /* the next one may come through */ }
}

async function place(response, quiet) {
  const page = new DOMParser().parseFromString(await response.text(), 'text/html');
  const next = $('#thread', page), here = $('#thread');
  if (!response.ok && next === null && here) {
    complain($('.empty h2', page)?.textContent + '. ' + ($('.empty p', page)?.textContent || ''));
    return;
  }
  const url = new URL(response.url);
  if (!next || !here) { location.href = url.href; return; }
  const moved = url.pathname !== location.pathname;
  if (moved) history.pushState(null, '', url.pathname);
  const old = new Map($$('article', here).map(a => [a.id, a]));
  const keep = $$('article', next).map(a => {
    const o = old.get(a.id);
    return o && !moved && (o.dataset.v === a.dataset.v || o.hasAttribute('data-follow') && a.hasAttribute('data-follow')) ? o : a;
  });
  here.replaceWith(next);
  next.replaceChildren(...(keep.length ? keep : next.childNodes));
  document.title = page.title;
  $('#list').replaceWith($('#list', page));
  if (moved) { $('.top').replaceWith($('.top', page)); document.body.className = page.body.className; }
  const composer = $('#composer'), fresh = $('#composer', page);
  composer.action = fresh.action;
  for (const name of ['parent', 'key']) composer.elements[name].value = fresh.elements[name].value;
  begin();
  if (!quiet) $(location.hash || url.hash || '#none')?.scrollIntoView({ block: 'nearest' });
}

function complain(text) {
  const hint = $('#hint');
  if (hint) { hint.textContent = text; hint.classList.add('held'); }
}

addEventListener('submit', async e => {
  const form = e.target, button = e.submitter;
  if (form.id === 'composer' && button?.classList.contains('stopping')) { e.preventDefault(); return stopAll(); }
  if ('quiet' in form.dataset) { e.preventDefault(); return fetch(form.action, { method: 'POST' }); }
  if (form.matches('.logout')) return leave();
  if (form.matches('.theme')) { e.preventDefault(); return recolour(form, button); }
  if (!('swap' in form.dataset)) return;
  e.preventDefault();
  if (form.dataset.busy) return;
  form.dataset.busy = '1';
  const draft = draftKey();
  try {
    if (await submit(form, button) && form.id === 'composer') {
      $('#ask').value = '';
      localStorage.removeItem(draft);
      stopper();
      toEnd();
      $('#ask').focus();
    }
  } catch { complain('The server cannot be reached. Your question is kept here; send it again.'); }
  delete form.dataset.busy;
});

async function recolour(form, button) {
  const now = button.value;
  await fetch(form.action, { method: 'POST', body: new URLSearchParams({ theme: now }), redirect: 'manual' });
  if (now === 'system') delete root.dataset.theme; else root.dataset.theme = now;
  for (const b of $$('.theme button')) {
    b.value = { dark: 'light', light: 'system', system: 'dark' }[now];
    $('span', b).textContent = now === 'system' ? 'Auto' : now;
  }
}

// The composer keeps what was not sent, says who would answer, and grows.
const draftKey = () => 'draft ' + location.pathname;
const grows = window.CSS && CSS.supports('field-sizing', 'content');
function grow(t) { if (!grows) { t.style.height = 'auto'; t.style.height = t.scrollHeight + 2 + 'px'; } }

async function hint() {
  const f = $('#composer'), hint = $('#hint');
  if (!f) return;
  const q = new URLSearchParams({ model: f.elements.model.value, project: f.elements.project?.checked ? '1' : '' });
  try {
    const d = await (await fetch('/api/route?' + q)).json();
    hint.classList.toggle('held', !!d.hold);
    const { model, provider } = d.targets?.[0] ?? {};
    hint.textContent = d.hold ? 'Will wait: ' + d.hold.reason : (q.get('model') || q.get('project')) && model !== provider ? model + ' on ' + provider : '';
  } catch { /* only a hint */ }
}

addEventListener('input', e => {
  if (e.target.id === 'ask') { grow(e.target); stopper(); localStorage.setItem(draftKey(), e.target.value); }
  if (e.target.type === 'search' && e.target !== lookup) search(e.target);
});
addEventListener('change', e => { if (e.target.closest('#composer .row')) hint(); });

let typing;
function search(input) {
  clearTimeout(typing);
  typing = setTimeout(async () => {
    const page = new DOMParser().parseFromString(await (await fetch(location.pathname + '?q=' + encodeURIComponent(input.value))).text(), 'text/html');
    if ($('#found', page)) $('#found').replaceWith($('#found', page));
  }, 150);
}

// Clicks: copy buttons, and citations, which open beside the text where there is room.
addEventListener('click', async e => {
  const copy = e.target.closest('.copy, .copy-answer');
  if (copy) {
    let text = copy.dataset.text ? '' : $('code', copy.closest('.code')).textContent;
    if (copy.dataset.text) text = await (await fetch(copy.dataset.text)).text();
    const done = await write(text), label = copy.textContent;
    copy.textContent = done ? 'Copied' : 'Not allowed';
    setTimeout(() => copy.textContent = 'Copy', 1500);
    return say(done ? 'Copied' : label);
  }
  if (e.target.closest('.find-any')) return palette();
  const cite = e.target.closest('a.cite');
  if (cite && innerWidth > 1000 && !e.ctrlKey && !e.metaKey && !e.shiftKey) { e.preventDefault(); return beside(cite); }
  for (const d of $$('details.pop[open]')) if (!d.contains(e.target)) d.open = false;
});

async function write(text) {
  try { await navigator.clipboard.writeText(text); return true; } catch { /* not a secure address: the old way */ }
  const t = document.createElement('textarea');
  t.value = text;
  document.body.append(t);
  t.select();
  const done = document.execCommand('copy');
  t.remove();
  return done;
}

async function beside(link) {
  const response = await fetch(link.href);
  const page = new DOMParser().parseFromString(await response.text(), 'text/html');
  const note = $('#note', page);
  if (!note) { location.href = link.href; return; }
  close();
  const aside = document.createElement('aside');
  aside.className = 'beside';
  aside.setAttribute('aria-label', 'Note');
  aside.tabIndex = -1;
  const bar = document.createElement('div');
  bar.className = 'head';
  const name = document.createElement('a');
  name.href = link.href;
  name.textContent = $('h1', page).textContent;
  const shut = document.createElement('button');
  shut.textContent = 'Close';
  shut.onclick = () => { close(); link.focus(); };
  const push = document.createElement('span');
  push.className = 'push';
  bar.append(name, push, shut);
  aside.append(bar, note);
  document.body.append(aside);
  document.body.classList.add('noted');
  aside.focus();
  $('.hit', aside)?.scrollIntoView({ block: 'center' });
}

const close = () => { const b = $('.beside'); b?.remove(); document.body.classList.remove('noted'); return !!b; };

// Keys.
addEventListener('keydown', e => {
  if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === 'k') { e.preventDefault(); return palette(); }
  if (e.key === 'Escape' && !$('dialog[open]')) {
    const sheet = $('details.pop[open]');
    if (sheet) { sheet.open = false; return $('summary', sheet).focus(); }
    if (close()) return;
    if ($('article[data-running]')) { e.preventDefault(); stopAll(); }
  }
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing && e.target.matches('#ask, .edit textarea')) {
    e.preventDefault();
    if (e.target.value.trim()) e.target.form.requestSubmit();
  }
});

// The palette: the server knows what there is; the models of the form here are chosen in place.
async function palette() {
  if ($('dialog[open]')) return;
  const d = document.createElement('dialog');
  d.className = 'palette';
  d.setAttribute('aria-label', 'Find anything');
  d.innerHTML = '<form method="dialog"><input type="text" role="combobox" aria-expanded="true" aria-controls="picks" aria-label="Find a page, a conversation, a note, a job or a model" placeholder="Page, chat, note, job, model…" autocomplete="off" autocapitalize="off" spellcheck="false"><button>Close</button></form><ul id="picks" role="listbox" aria-label="Found"></ul>';
  document.body.append(d);
  d.showModal();
  d.onclose = () => d.remove();
  d.onclick = e => { if (e.target === d) d.close(); };
  const input = $('input', d), list = $('ul', d);
  input.focus();
  const run = x => {
    d.close();
    const select = $('#composer select'), option = x.model && select && [...select.options].find(o => o.value === x.model);
    if (option) { select.value = x.model; hint(); return $('#ask').focus(); }
    if (x.post) { leave(); const f = document.createElement('form'); f.method = 'post'; f.action = x.post; document.body.append(f); return f.submit(); }
    location.href = x.href;
  };
  let shown = [], at = 0, asked = 0, waits = 0, pending;
  const draw = () => {
    list.replaceChildren(...shown.map((x, i) => {
      const li = document.createElement('li'), name = document.createElement('span'), kind = document.createElement('small');
      li.id = 'pick' + i;
      li.setAttribute('role', 'option');
      li.setAttribute('aria-selected', i === at);
      name.textContent = x.name;
      kind.textContent = x.kind;
      li.append(name, kind);
      li.onclick = () => run(x);
      return li;
    }));
    if (!shown.length) list.innerHTML = '<li class="none">Nothing is called so.</li>';
    input.setAttribute('aria-activedescendant', shown.length ? 'pick' + at : '');
    list.children[at]?.scrollIntoView({ block: 'nearest' });
  };
  const find = async () => {
    const mine = ++asked;
    try {
      const found = await (await fetch('/api/find?q=' + encodeURIComponent(input.value))).json();
      if (mine !== asked) return;
      shown = found;
      at = 0;
      draw();
    } catch { list.innerHTML = '<li class="none">The server cannot be reached.</li>'; }
  };
  const now = () => { clearTimeout(waits); waits = 0; pending = find(); };
  input.oninput = () => { clearTimeout(waits); waits = setTimeout(now, 80); };
  input.onkeydown = async e => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (step && shown.length) { e.preventDefault(); at = (at + step + shown.length) % shown.length; draw(); }
    if (e.key === 'Enter') {
      e.preventDefault();
      if (waits) now(); // what is typed counts, not what was found before it
      await pending;
      if (shown[at]) run(shown[at]);
    }
  };
  now();
}

// Whoever logs out leaves no drafts in this browser.
const leave = () => localStorage.clear();

// The corner with the machines, and countdowns.
async function corner() {
  const here = $('#where');
  if (document.hidden || !here || here.open) return;
  try {
    const response = await fetch('/where');
    if (!response.ok) return;
    const now = new DOMParser().parseFromString(await response.text(), 'text/html').body.firstElementChild;
    if (now && !here.open && now.innerHTML !== here.innerHTML) here.replaceChildren(...now.childNodes);
  } catch { /* shown again when it is back */ }
}

// Pages that show the queue load their part of it again when something has changed. The answer of a job arrives in one element,
// whose blocks are the stream's business alone.
function live() {
  const url = $('[data-live]')?.dataset.live;
  if (!url) return;
  const source = new EventSource(url);
  const prose = $('.arriving') || document.createElement('div');
  prose.className = 'prose arriving';
  let loading, again, over, late;
  const put = next => {
    const now = $('#live');
    if (now.dataset.part !== undefined) {
      for (const part of $$('[data-part]')) { const fresh = $('#' + part.id, next.ownerDocument); if (fresh) alter(part, fresh); }
      return;
    }
    const had = document.activeElement, inside = now.contains(had);
    const same = inside && (had.matches('a[href]') ? `a[href="${had.getAttribute('href')}"]` : `form[action="${had.closest('form')?.getAttribute('action')}"] button`);
    const fresh = $('.arriving', next);
    if (fresh && !prose.children.length) prose.replaceChildren(...fresh.childNodes);
    fresh?.replaceWith(prose);
    now.replaceChildren(...next.childNodes);
    if (same) $(same, now)?.focus();
    recall();
    if (!next.dataset.live) { over = true; delete now.dataset.live; source.close(); }
    countdown();
  };
  const load = async () => {
    late = document.hidden; // nobody looks: once, when somebody does again
    if (late) return;
    if (loading) { again = true; return; }
    loading = true;
    do {
      again = false;
      try {
        const response = await fetch(location.pathname);
        const next = response.ok && $('#live', new DOMParser().parseFromString(await response.text(), 'text/html'));
        if (next) put(next);
      } catch { /* the next change may come through */ }
    } while (again);
    loading = false;
  };
  source.addEventListener('change', load);
  source.addEventListener('open', load);
  const seen = () => { if (late) load(); };
  document.addEventListener('visibilitychange', seen);
  source.addEventListener('blocks', e => fill(prose, JSON.parse(e.data)));
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) { document.removeEventListener('visibilitychange', seen); if (!over) setTimeout(live, 2000); } };
  addEventListener('pagehide', () => source.close(), { once: true });
}

// What is as it was stays the same element, with its focus, its place and what is typed or open in it. Rows are told apart by data-key.
function alter(now, next) {
  if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName) { now.replaceWith(next.cloneNode(true)); return; }
  if (now.nodeType !== Node.ELEMENT_NODE) { if (now.data !== next.data) now.data = next.data; return; }
  for (const a of [...now.attributes]) if (!next.hasAttribute(a.name) && a.name !== 'open') now.removeAttribute(a.name);
  for (const a of next.attributes) if (now.getAttribute(a.name) !== a.value) now.setAttribute(a.name, a.value);
  const key = n => n.dataset?.key, keys = new Set([...next.children].map(key));
  for (const child of [...now.children]) if (key(child) && !keys.has(key(child))) child.remove();
  const had = new Map([...now.children].map(child => [key(child), child]));
  let at = now.firstChild;
  for (const fresh of [...next.childNodes]) {
    const old = key(fresh) ? had.get(key(fresh)) : at && !key(at) ? at : null;
    if (!old) { now.insertBefore(fresh.cloneNode(true), at); continue; }
    if (old === at) at = at.nextSibling; else now.insertBefore(old, at);
    alter(old, fresh);
  }
  while (at) { const rest = at.nextSibling; at.remove(); at = rest; }
}

function countdown() {
  for (const t of $$('time[data-until]')) {
    const s = Math.round((new Date(t.dataset.until) - Date.now()) / 1000);
    t.dataset.clock ||= t.textContent;
    const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
    t.textContent = s <= 0 ? `${t.dataset.clock}, which is now` : `${t.dataset.clock}, in ${h ? h + ' h ' : ''}${h || m ? m + ' min ' : ''}${h ? '' : s % 60 + ' s'}`.trimEnd();
  }
}

// Answers under way are followed, and the last two that wait: a browser has six lines to a server.
function begin() {
  const waiting = $$('article[data-follow]:not([data-running])').slice(-2);
  const here = new Set([...$$('article[data-running]'), ...waiting].map(a => { follow(a); return a.dataset.turn; }));
  for (const turn of open.keys()) if (!here.has(turn)) drop(turn);
  stopper();
  countdown();
  recall();
}

// What a person has changed of a plan outlives that its form is drawn anew, as long as it is the same plan.
const plans = new Map(), fields = f => [...f.elements].filter(e => e.matches('textarea, input:not([type=hidden])'));
const given = f => fields(f).map(e => e.type === 'checkbox' ? e.defaultChecked : e.defaultValue).join('\n');
addEventListener('input', e => {
  const f = e.target.closest?.('.plan form');
  if (f) plans.set(f.action, { given: given(f), now: fields(f).map(x => x.type === 'checkbox' ? x.checked : x.value), at: fields(f).indexOf(e.target), from: e.target.selectionStart });
});
function recall() {
  for (const f of $$('.plan form')) {
    const p = plans.get(f.action);
    if (!p || p.given !== given(f)) continue;
    fields(f).forEach((e, i) => { if (e.type === 'checkbox') e.checked = p.now[i]; else e.value = p.now[i]; });
    const had = fields(f)[p.at];
    if (document.activeElement === document.body && had) { had.focus({ preventScroll: true }); if (had.type !== 'checkbox') had.setSelectionRange(p.from, p.from); }
  }
}

if (/Mac|iP/.test(navigator.platform)) for (const k of $$('.find-any kbd')) k.textContent = '\u2318K';
const ask = $('#ask');
if (ask && !ask.value) { ask.value = localStorage.getItem(draftKey()) || ''; grow(ask); }
begin();
live();

// Search as you type: the same page as the form would open, its results only.
const lookup = $('[data-search]');
if (lookup) {
  let timer, asked = 0;
  lookup.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const mine = ++asked, url = `/library?q=${encodeURIComponent(lookup.value)}`;
      const response = await fetch(url).catch(() => null);
      if (!response?.ok || mine !== asked) return;
      const next = $('#found', new DOMParser().parseFromString(await response.text(), 'text/html'));
      if (!next || mine !== asked) return;
      $('#found').replaceWith(next);
      history.replaceState(null, '', lookup.value ? url : '/library');
      say(next.dataset.says);
    }, 120);
  });
}
hint();
if ($('.hit')) $('.hit').scrollIntoView({ block: 'center' });
else if ($('#thread article') && !location.hash) toEnd();
setInterval(countdown, 1000);
setInterval(corner, 5000);
addEventListener('popstate', () => location.reload());
addEventListener('pageshow', e => { if (e.persisted) refresh(); });
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  for (const [turn, t] of open) if (t.source.readyState === EventSource.CLOSED) { t.wait = 500; connect(turn, t); }
  corner();
  if ($('[data-chat]')) refresh();
});
})();
