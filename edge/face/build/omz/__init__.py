"""Makes graphs of face-reidentification-retail-0095 from the OpenVINO files that Open Model Zoo publishes."""
