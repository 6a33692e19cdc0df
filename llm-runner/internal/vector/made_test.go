package vector

import (
	"math"
	"math/rand/v2"
)

// made returns n unit vectors that are alike in the way embeddings of texts are: topics of very different sizes, documents
// within them, points within those; variance that falls like i^-fall along hidden axes that no dimension is parallel to;
// and a part that all share. dimensions is a multiple of 128. The numbers are set by real embeddings, see docs/decisions/0011-vectors.md.
func made(n, dimensions int, fall, common float64, seed uint64) [][]float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	spread, signs := make([]float64, dimensions), make([]float32, dimensions)
	for i := range spread {
		spread[i], signs[i] = math.Pow(float64(i+1), -fall/2), float32(1-2*r.IntN(2))
	}
	draw := func(near []float32, share float32) []float32 {
		v := make([]float32, dimensions)
		for i := range v {
			v[i] = float32(spread[i]*r.NormFloat64()) * float32(math.Sqrt(float64(1-share*share)))
			if near != nil {
				v[i] += share * near[i]
			}
		}
		return v
	}
	var topics, docs [][]float32
	for range max(8, n/200) {
		topics = append(topics, draw(nil, 0))
	}
	for range n/10 + 1 {
		docs = append(docs, draw(topics[int(math.Pow(r.Float64(), 1.5)*float64(len(topics)))], 0.6))
	}
	all := make([]float32, dimensions)
	for i := range all {
		all[i] = float32(r.NormFloat64())
	}
	all = Unit(all)
	out := make([][]float32, n)
	for i := range out {
		v := Unit(draw(docs[r.IntN(len(docs))], 0.7))
		turn(v, signs)
		for j := range v {
			v[j] = float32(math.Sqrt(1-common))*v[j] + float32(math.Sqrt(common))*all[j]
		}
		out[i] = Unit(v)
	}
	return out
}

// turn is an orthogonal map that mixes all dimensions: twice signs, Hadamard on blocks of 128, and a shuffle.
func turn(v, signs []float32) {
	for range 2 {
		for i := range v {
			v[i] *= signs[i]
		}
		for at := 0; at < len(v); at += 128 {
			hadamard(v[at : at+128])
		}
		w := make([]float32, len(v))
		for i := range v {
			w[i%128*(len(v)/128)+i/128] = v[i]
		}
		copy(v, w)
	}
}

func hadamard(v []float32) {
	for h := 1; h < len(v); h *= 2 {
		for i := 0; i < len(v); i += 2 * h {
			for j := i; j < i+h; j++ {
				v[j], v[j+h] = (v[j]+v[j+h])/math.Sqrt2, (v[j]-v[j+h])/math.Sqrt2
			}
		}
	}
}
