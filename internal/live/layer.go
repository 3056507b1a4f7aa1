package live

import (
	"context"
	"fmt"

	"github.com/powernode/powernode-agent/internal/rootfs"
)

// layer is the writable layer on the disk, which the next boot has to know of; nil for one in memory.
func (w *work) layer() (*rootfs.LiveLayer, error) {
	return rootfs.LiveLayerOf(w.spec.Images.Path(), w.upper, w.spec.Hook)
}

// swapLayer makes a change, and writes down what comes to lie beneath the writable layer, before and after.
func (w *work) swapLayer(ctx context.Context) (Result, error) {
	layer, err := w.layer()
	if err == nil {
		err = layer.Begin(w.spec.From.RootDigest, w.spec.To.RootDigest)
	}
	if err != nil {
		return Result{}, err
	}
	return w.forward(ctx)
}

// forward makes a change that may have begun, and writes down what lies beneath the writable layer.
func (w *work) forward(ctx context.Context) (Result, error) {
	result, err := w.swap(ctx)
	if err != nil {
		return result, err
	}
	layer, err := w.layer()
	if err == nil {
		err = layer.Done(w.spec.To.RootDigest)
	}
	return result, err
}

// tookBack writes down that the change was undone. Where that can't be written, a boot of the old root looks through the layer,
// which costs time and does no harm to whole files: no reason to call the way back failed.
func (w *work) tookBack() {
	layer, err := w.layer()
	if err == nil {
		err = layer.Back(w.spec.From.RootDigest, w.spec.To.RootDigest)
	}
	if err != nil {
		w.spec.Remark(fmt.Sprintf("that the change was taken back isn't written down for the next boot: %v", err), "")
	}
}
