package main

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/valyala/fasthttp"
)

func ask(s *sink, method, uri, body string) *fasthttp.Response {
	var c fasthttp.RequestCtx
	c.Request.Header.SetMethod(method)
	c.Request.SetRequestURI(uri)
	c.Request.SetBodyString(body)
	s.serve(&c)
	return &c.Response
}

func TestSinkBooksByRun(t *testing.T) {
	s := &sink{runs: map[int]*ledger{}}
	for _, uri := range []string{"/1/0/t", "/1/0/t", "/1/1", "/2/0"} {
		if got := ask(s, "POST", uri, `{"data":{"n":5}}`).StatusCode(); got != fasthttp.StatusNoContent {
			t.Errorf("%s: status %d", uri, got)
		}
	}
	if got := ask(s, "POST", "/elsewhere", "").StatusCode(); got != fasthttp.StatusNotFound {
		t.Errorf("unknown path: status %d", got)
	}
	for run, want := range map[string]counts{"1": {Received: 3, Distinct: 2}, "2": {Received: 1, Distinct: 1}, "3": {}} {
		var got counts
		if err := json.Unmarshal(ask(s, "GET", countsPath+"?run="+run, "").Body(), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("run %s (-want +got):\n%s", run, diff)
		}
	}
	var trace []arrival
	if err := json.Unmarshal(ask(s, "GET", tracePath+"?run=1", "").Body(), &trace); err != nil {
		t.Fatal(err)
	}
	if len(trace) != 2 || trace[0].Number != 5 || trace[0].At == 0 {
		t.Errorf("trace: got %+v, want two arrivals of number 5", trace)
	}
}
