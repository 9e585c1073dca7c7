package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

const (
	provisionerName         = "tunesmith.dev/hostpath"
	provisionedByAnnotation = "pv.kubernetes.io/provisioned-by"
)

// provisioner gives each claim of its storage class a folder of this machine, and takes the
// folder away once the claim is gone.
type provisioner struct {
	client    kubernetes.Interface
	directory string
	informers informers.SharedInformerFactory
	// queue holds the claims that want a volume and the volumes that lost their claim.
	queue workqueue.TypedRateLimitingInterface[volumeKey]
}

// volumeKey names the claim to serve, or the volume to release when there is no claim.
type volumeKey struct{ namespace, claim, volume string }

func runProvisioner() int {
	flags := flag.NewFlagSet("provisioner", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API server")
	directory := flags.String("directory", "", "folder that holds the volumes")
	_ = flags.Parse(os.Args[1:])

	client, err := newClient(*kubeconfig)
	if err != nil {
		fmt.Fprintln(os.Stderr, "provisioner:", err)
		return 1
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	newProvisioner(client, *directory).run(ctx)
	return 0
}

func newClient(kubeconfig string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 200, 400
	return kubernetes.NewForConfig(config)
}

func newProvisioner(client kubernetes.Interface, directory string) *provisioner {
	p := &provisioner{
		client:    client,
		directory: directory,
		informers: informers.NewSharedInformerFactory(client, 10*time.Minute),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[volumeKey](
				50*time.Millisecond, 10*time.Second)),
	}
	enqueue := cache.ResourceEventHandlerFuncs{
		AddFunc:    p.enqueue,
		UpdateFunc: func(_, changed any) { p.enqueue(changed) },
	}
	_, _ = p.informers.Core().V1().PersistentVolumeClaims().Informer().AddEventHandler(enqueue)
	_, _ = p.informers.Core().V1().PersistentVolumes().Informer().AddEventHandler(enqueue)
	p.informers.Storage().V1().StorageClasses().Informer()
	return p
}

func (p *provisioner) enqueue(object any) {
	switch each := object.(type) {
	case *core.PersistentVolumeClaim:
		if each.Spec.VolumeName == "" && each.Spec.StorageClassName != nil {
			p.queue.Add(volumeKey{namespace: each.Namespace, claim: each.Name})
		}
	case *core.PersistentVolume:
		if each.Status.Phase == core.VolumeReleased {
			p.queue.Add(volumeKey{volume: each.Name})
		}
	}
}

func (p *provisioner) run(ctx context.Context) {
	p.informers.Start(ctx.Done())
	p.informers.WaitForCacheSync(ctx.Done())
	go func() {
		<-ctx.Done()
		p.queue.ShutDown()
	}()
	for {
		key, stopped := p.queue.Get()
		if stopped {
			return
		}
		if err := p.reconcile(ctx, key); err != nil {
			fmt.Fprintf(os.Stderr, "provisioner: %v: %v\n", key, err)
			p.queue.AddRateLimited(key)
		} else {
			p.queue.Forget(key)
		}
		p.queue.Done(key)
	}
}

func (p *provisioner) reconcile(ctx context.Context, key volumeKey) error {
	if key.claim == "" {
		return p.release(ctx, key.volume)
	}
	claim, err := p.client.CoreV1().PersistentVolumeClaims(key.namespace).Get(ctx, key.claim, meta.GetOptions{})
	if errors.IsNotFound(err) {
		return nil
	}
	if err != nil || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil {
		return err
	}
	class, err := p.informers.Storage().V1().StorageClasses().Lister().Get(*claim.Spec.StorageClassName)
	if errors.IsNotFound(err) || (err == nil && class.Provisioner != provisionerName) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.provision(ctx, claim, class)
}

// provision makes a claim's folder and the volume bound to it; a repeated call changes nothing.
func (p *provisioner) provision(ctx context.Context, claim *core.PersistentVolumeClaim, class *storage.StorageClass) error {
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(p.directory, name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	// A kubelet applies no fsGroup to hostPath volumes: any user may write here, whatever umask
	// the provisioner was started with.
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	_, err := p.client.CoreV1().PersistentVolumes().Create(ctx, volumeFor(claim, class, name, path), meta.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func volumeFor(claim *core.PersistentVolumeClaim, class *storage.StorageClass, name, path string) *core.PersistentVolume {
	kind := core.HostPathDirectory
	policy := core.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{provisionedByAnnotation: provisionerName},
		},
		Spec: core.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			PersistentVolumeReclaimPolicy: policy,
			StorageClassName:              class.Name,
			VolumeMode:                    claim.Spec.VolumeMode,
			ClaimRef: &core.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: core.PersistentVolumeSource{
				HostPath: &core.HostPathVolumeSource{Path: path, Type: &kind},
			},
		},
	}
}

// release deletes a volume whose claim is gone, and the folder behind it.
func (p *provisioner) release(ctx context.Context, name string) error {
	volume, err := p.client.CoreV1().PersistentVolumes().Get(ctx, name, meta.GetOptions{})
	if errors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	ours := volume.Annotations[provisionedByAnnotation] == provisionerName
	deletes := volume.Spec.PersistentVolumeReclaimPolicy == core.PersistentVolumeReclaimDelete
	if !ours || !deletes || volume.Status.Phase != core.VolumeReleased {
		return nil
	}
	// The path is built anew, not read from the object: whoever may edit a volume must not be
	// able to have any folder of this machine deleted.
	if err := os.RemoveAll(filepath.Join(p.directory, filepath.Base(name))); err != nil {
		return err
	}
	err = p.client.CoreV1().PersistentVolumes().Delete(ctx, name, meta.DeleteOptions{})
	if errors.IsNotFound(err) {
		return nil
	}
	return err
}
