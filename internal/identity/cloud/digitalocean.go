package cloud

// digitalOcean is DigitalOcean (DigitalOcean, "Droplet Metadata API"), whose machines say so as their
// vendor. The service takes no header.
func digitalOcean() provider {
	return provider{
		name: DigitalOcean, title: "DigitalOcean",
		is:       func(m Machine) bool { return m.SysVendor == "DigitalOcean" },
		userData: "/metadata/v1/user-data",
		probe:    "/metadata/v1/id",
	}
}
