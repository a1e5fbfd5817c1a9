package deliver

// isFormer reports whether the lane is none of its endpoint's shards any more.
func (l *lane) isFormer() bool { return l.know.target != nil && l.know.target.former }

// mendFormer forgets how the endpoint fared at a lane that is none of its shards
// any more and has nothing left: nothing comes there that could find out better, so
// its breaker would stay open, and be told, for ever.
func (w *Worker) mendFormer(l *lane) {
	if l.isFormer() && l.empty() && (l.breaker.isOpen() || !l.failingSince.IsZero()) {
		w.mend(l)
	}
}
