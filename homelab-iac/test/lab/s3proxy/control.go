package s3proxy

import (
	"encoding/json"
	"net/http"
)

// Control is the other door, for who runs the lab: the record, the objects and the faults as JSON. It has no lock of its
// own: serve it on a loopback address or a socket only.
//
//	GET /requests   GET /objects   POST /faults (a Fault)   DELETE /faults (all of them)
func (p *Proxy) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /requests", func(w http.ResponseWriter, _ *http.Request) { answer(w, p.Requests()) })
	mux.HandleFunc("GET /objects", func(w http.ResponseWriter, _ *http.Request) { answer(w, p.Objects()) })
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
		d.DisallowUnknownFields()
		var f Fault
		err := d.Decode(&f)
		if err == nil {
			_, err = p.Inject(f)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		p.Heal()
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client has left
}
