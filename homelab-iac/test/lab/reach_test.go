package lab

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestTheWayOutLeadsToWhatIsNamedOnly(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello "+r.Host) })
	plain, secure, other := httptest.NewServer(answer), httptest.NewTLSServer(answer), httptest.NewServer(answer)
	defer plain.Close()
	defer secure.Close()
	defer other.Close()
	host := func(s *httptest.Server) string {
		return strings.TrimPrefix(strings.TrimPrefix(s.URL, "http://"), "https://")
	}
	w, err := openWay("127.0.0.1:0", []string{host(plain), host(secure)})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	proxy, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	client := secure.Client()
	client.Timeout = 10 * time.Second
	client.Transport.(*http.Transport).Proxy = http.ProxyURL(proxy)
	for _, s := range []*httptest.Server{plain, secure} {
		resp, err := client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(text) != "hello "+host(s) {
			t.Errorf("%s: %s %s", s.URL, resp.Status, text)
		}
	}
	resp, err := client.Get(other.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("the way leads to %s: %s", other.URL, resp.Status)
	}
}
