package cloud

// hetzner is Hetzner Cloud (Hetzner Cloud API, "Server metadata"), whose machines say so as their
// vendor. User-data there is text only; who wants it packed gives it in base64, which package userdata
// takes off. The service takes no header.
func hetzner() provider {
	return provider{
		name: Hetzner, title: "Hetzner Cloud",
		is:       func(m Machine) bool { return m.SysVendor == "Hetzner" },
		userData: "/hetzner/v1/userdata",
		probe:    "/hetzner/v1/metadata/instance-id",
	}
}
