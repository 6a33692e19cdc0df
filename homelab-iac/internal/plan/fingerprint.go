package plan

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// Fingerprint tells plans apart by everything that they would do, values included, and tells nothing of the values themselves: two plans
// have the same one if they would do the same. The key is something that only those know who may see the state, such as its lineage;
// without it a short value could be guessed from the fingerprint. Reads and what stays the same do not count.
func (p Plan) Fingerprint(key string) string {
	h := hmac.New(sha256.New, []byte("homelab plan "+key))
	put := func(v any) {
		text, err := json.Marshal(v) // what json.Decoder made has a JSON form
		if err != nil {
			text = fmt.Append(nil, err)
		}
		h.Write(text)
		h.Write([]byte{'\n'})
	}
	for _, r := range p.Resources {
		if kind := r.Kind(); r.Mode != "managed" || kind == Same && r.Previous == "" && !r.Imported {
			continue
		}
		put([]any{r.Address, r.Previous, strings.Join(r.Actions, ","), r.Deposed, r.Imported, r.PutOff, r.Changed, r.Because})
		if r.values != nil {
			put([]any{r.values.before, r.values.after, r.values.unknown})
		}
	}
	for _, o := range p.Outputs {
		if strings.Join(o.Actions, ",") != "no-op" {
			put([]any{o.Name, o.Actions})
		}
	}
	put(p.Invokes)
	return hex.EncodeToString(h.Sum(nil))[:32]
}

// Empty says whether applying the plan would change nothing at all, what is remembered of outputs included.
func (p Plan) Empty() bool {
	for _, r := range p.Resources {
		if r.Mode == "managed" && (r.Kind() != Same || r.Previous != "" || r.Imported) {
			return false
		}
	}
	for _, o := range p.Outputs {
		if strings.Join(o.Actions, ",") != "no-op" {
			return false
		}
	}
	return len(p.Invokes) == 0 && !p.Errored
}
