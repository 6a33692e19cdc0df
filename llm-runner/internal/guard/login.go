package guard

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

var page = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in</title>
<style>
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 20rem; margin: 20vh auto 0; padding: 0 1rem }
label, input, button { display: block; width: 100%; box-sizing: border-box; font: inherit }
input, button { margin-top: .5rem; padding: .5rem }
</style>
<h1>llm-runner</h1>
<form method="post" action="/login">
{{with .Message}}<p role="alert">{{.}}</p>{{end}}
<input type="hidden" name="next" value="{{.Next}}">
<label>Password <input type="password" name="password" autocomplete="current-password" required autofocus></label>
<button>Log in</button>
</form>
</html>
`))

// login shows the form, and takes it.
func (g *Guard) login(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost:
		g.takeLogin(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		wrongMethod(w, "GET, HEAD, POST")
	case g.identify(r).person:
		http.Redirect(w, r, localPath(r.FormValue("next")), http.StatusSeeOther)
	default:
		showLogin(w, r, http.StatusOK, "")
	}
}

func wrongMethod(w http.ResponseWriter, allow string) {
	w.Header().Set("Allow", allow)
	refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "use "+allow)
}

func showLogin(w http.ResponseWriter, r *http.Request, status int, message string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = page.Execute(w, struct{ Message, Next string }{message, localPath(r.FormValue("next"))})
}

func (g *Guard) takeLogin(w http.ResponseWriter, r *http.Request) {
	if err := g.ownPage(r, false); err != nil {
		refuse(w, http.StatusForbidden, "cross_site", err.Error())
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	from := origin(r)
	if wait := g.throttle.try(from, time.Now()); wait > 0 {
		seconds := int((wait + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		showLogin(w, r, http.StatusTooManyRequests, fmt.Sprintf("Too many wrong passwords. Try again in %d s.", seconds))
		return
	}
	sum := sha256.Sum256([]byte(r.PostFormValue("password")))
	if subtle.ConstantTimeCompare(sum[:], g.password[:]) != 1 {
		g.log.Warn("wrong password", "from", from.String())
		showLogin(w, r, http.StatusUnauthorized, "Wrong password.")
		return
	}
	g.throttle.forgive(from)
	value, expires := g.cookies.issue(time.Now())
	setCookie(w, r, value, expires)
	http.Redirect(w, r, localPath(r.PostFormValue("next")), http.StatusSeeOther)
}

func (g *Guard) logout(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		wrongMethod(w, "POST")
		return
	}
	if err := g.ownPage(r, true); err != nil {
		refuse(w, http.StatusForbidden, "cross_site", err.Error())
		return
	}
	for _, c := range r.CookiesNamed(cookieName) {
		g.cookies.revoke(c.Value, time.Now())
	}
	setCookie(w, r, "", time.Unix(1, 0))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

func setCookie(w http.ResponseWriter, r *http.Request, value string, expires time.Time) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: value, Path: "/", Expires: expires,
		HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"),
	})
}

// wantsPage says that a browser wants to show a page.
func wantsPage(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.Contains(r.Header.Get("Accept"), "text/html")
}

func escapeNext(r *http.Request) string { return url.QueryEscape(r.URL.RequestURI()) }

// localPath returns next if it is a path on this service, else "/": a login must not end on a foreign page.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

// origin returns whose guesses are counted together: an address, or the /64 network of an IPv6 address, which is what one
// customer gets. Behind a proxy on this machine it is the address that the proxy saw.
func origin(r *http.Request) netip.Prefix {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	a := addr(host)
	if a.IsLoopback() {
		chain := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if seen := addr(strings.TrimSpace(chain[len(chain)-1])); seen.IsValid() {
			a = seen
		}
	}
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// A throttle counts wrong passwords. The first three in a row cost nothing; each further one doubles the wait from one
// second up to five minutes. The zero value is ready.
type throttle struct {
	mu    sync.Mutex
	wrong map[netip.Prefix]guesses
}

type guesses struct {
	count int
	until time.Time // earlier guesses are not looked at
}

const (
	freeGuesses = 3
	longestWait = 5 * time.Minute
	forgetAfter = time.Hour
	maxOrigins  = 10_000 // remembered; beyond, those that nobody knows share one place
)

// try takes a place for one guess and returns 0, or returns how long to wait. The guess counts as wrong until forgive:
// many at the same time gain nothing.
func (t *throttle) try(from netip.Prefix, now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wrong == nil {
		t.wrong = map[netip.Prefix]guesses{}
	}
	if _, known := t.wrong[from]; !known && len(t.wrong) >= maxOrigins {
		for p, g := range t.wrong {
			if now.Sub(g.until) > forgetAfter {
				delete(t.wrong, p)
			}
		}
		if len(t.wrong) >= maxOrigins {
			from = netip.Prefix{}
		}
	}
	g := t.wrong[from]
	if now.Sub(g.until) > forgetAfter {
		g = guesses{}
	}
	if g.until.After(now) {
		return g.until.Sub(now)
	}
	g.count++
	g.until = now
	if over := g.count - freeGuesses; over >= 0 {
		g.until = now.Add(min(time.Second<<min(over, 10), longestWait))
	}
	t.wrong[from] = g
	return 0
}

func (t *throttle) forgive(from netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.wrong, from)
}
