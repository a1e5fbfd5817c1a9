package main

import (
	"bytes"
	"embed"
	"fmt"
)

//go:embed samples
var samples embed.FS

// sample is one event of the demo: its type and the vendor's payload.
type sample struct {
	eventType string
	data      []byte
}

// demoSamples returns the events that the demo sends, in order.
func demoSamples() ([]sample, error) {
	list := make([]sample, 0, 8)
	for _, s := range [...]struct{ eventType, file string }{
		{"shopify.orders.create", "shopify/orders.create.json"},
		{"stripe.payment_intent.succeeded", "stripe/payment_intent.succeeded.json"},
		{"github.push", "github/push.json"},
		{"shopify.products.update", "shopify/products.update.json"},
		{"stripe.invoice.paid", "stripe/invoice.paid.json"},
		{"paypal.payment.capture.completed", "paypal/PAYMENT.CAPTURE.COMPLETED.json"},
		{"contact.created", "standardwebhooks/contact.created.json"},
		{"github.star", "github/star.created.json"},
	} {
		data, err := samples.ReadFile("samples/" + s.file)
		if err != nil {
			return nil, fmt.Errorf("sample: %w", err)
		}
		list = append(list, sample{s.eventType, bytes.TrimSpace(data)})
	}
	return list, nil
}
